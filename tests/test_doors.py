"""The doors as a user runs them, over one small trained workdir."""

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from grpo_jax import config_files
from grpo_jax.policy import huggingface
from grpo_jax.trainer import model as models
from grpo_jax.trainer import policies
from tests import helpers

pytestmark = pytest.mark.system

SMALL = (
    *helpers.SMALL_QUICKSTART,
    "--config.trainer.steps=3",
    "--config.rollout.prompts_per_step=4",
    "--config.rollout.group_size=4",
    "--config.evaluation.every_steps=2",
    "--config.evaluation.samples=2",
    # So few steps solve nothing; this teaches something all the same.
    '--config.reward.weights={"accuracy": 1.0, "my_rewards:brevity": 0.5}',
    # And truncates most completions.
    "--config.monitor.warn_above={}",
)
MY_REWARDS = """
def brevity(completions):
    return [1 - completion.num_tokens / 32 for completion in completions]
"""
STEPS = 3
GREEDY = ("--temperature=0", "--max_tokens=12")
PROMPTS = "1+2+3+4?\n\n5-6+7-8?\n"


@pytest.fixture(scope="session")
def door(tmp_path_factory):
    """Runs a door on one CPU device; all of them share their compilations."""
    cache = tmp_path_factory.mktemp("compilations")
    modules = tmp_path_factory.mktemp("modules")
    (modules / "my_rewards.py").write_text(MY_REWARDS)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(modules),
        "PYTHONIOENCODING": "utf-8",
    }

    def run(name, *arguments, stdin="", status=0):
        done = subprocess.run(
            [sys.executable, "-m", f"grpo_jax.{name}", *map(str, arguments)],
            capture_output=True,
            encoding="utf-8",
            env=environment,
            input=stdin,
            timeout=300,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def trained(door, tmp_path_factory):
    """The workdir of a run, and what the run printed."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    done = door("train", *SMALL, f"--workdir={workdir}")
    return types.SimpleNamespace(workdir=workdir, printed=done.stdout, said=done.stderr)


@pytest.fixture(scope="session")
def exported(door, trained, tmp_path_factory):
    """A directory that holds the trained model in full precision."""
    output = tmp_path_factory.mktemp("models") / "new" / "model"
    done = door(
        "export",
        f"--workdir={trained.workdir}",
        f"--output={output}",
        "--dtype=float32",
    )
    assert done.stdout == f"step {STEPS} of {trained.workdir} is in {output}\n"
    return output


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def read(path):
    return json.loads(path.read_text())


# train


def test_train_prints_its_progress_and_what_changed(trained):
    assert trained.said == ""
    printed = trained.printed
    for text in (
        "warm start 6/6",
        "GRPO 3/3",
        "pass@1",
        "truncated",
        "before",
        "after",
    ):
        assert text in printed
    assert printed.endswith(f"report: {trained.workdir / 'report.html'}\n")
    assert "Traceback" not in printed and "\x1b" not in printed


def test_train_writes_every_file(trained):
    workdir = trained.workdir
    names = {path.name for path in workdir.iterdir()}
    assert names == {
        "checkpoints",
        "config.json",
        "evaluation",
        "metrics.jsonl",
        "report.html",
        "rollouts",
        "summary.json",
        "tensorboard",
        "warm_start",
        "warm_start.jsonl",
    }
    assert not list(workdir.rglob("*.partial"))
    assert list((workdir / "tensorboard").glob("events.out.tfevents.*"))
    assert (workdir / "checkpoints" / str(STEPS)).is_dir()
    page = (workdir / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "Reward" in page

    config = config_files.of_workdir(workdir)
    assert (config.trainer.steps, config.rollout.group_size) == (STEPS, 4)

    metrics = lines(workdir / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    for line in metrics:
        assert np.isfinite(line["loss/total"]) and line["policy/entropy"] > 0
        assert line["policy/sampler_gap_max"] < 1e-4
    assert ["evaluation/pass@1" in line for line in metrics] == [False, True, False]
    assert len(lines(workdir / "warm_start.jsonl")) == 6

    for step in (1, 2, 3):
        rows = lines(workdir / "rollouts" / f"{step:06d}.jsonl")
        assert [(row["group"], row["sample"]) for row in rows] == [
            (group, sample) for group in range(4) for sample in range(4)
        ]
        for row in rows:
            (origin, start, end), *more = row["spans"]
            assert (origin, start, more) == ("sampled", 0, [])
            assert end == row["completion_tokens"] <= 32
            brevity = row["rewards"]["my_rewards:brevity"]
            assert brevity == pytest.approx(1 - row["completion_tokens"] / 32)
            total = row["rewards"]["accuracy"] + 0.5 * brevity
            assert row["reward"] == pytest.approx(total)
        assert sum(row["advantage"] for row in rows) == pytest.approx(0, abs=1e-3)

    summary = read(workdir / "summary.json")
    assert (summary["steps"], summary["stopped"]) == (STEPS, "finished")
    assert summary["generated_tokens"] > 0 and summary["tokens_per_second"] > 0
    assert {"warm_start", "rollout", "update", "total"} <= summary["seconds"].keys()
    for name in ("before", "after"):
        assert summary["evaluation"][name] == read(workdir / f"evaluation/{name}.json")


def test_the_same_command_again_has_nothing_left_to_do(door, trained):
    before = (trained.workdir / "metrics.jsonl").read_text()
    done = door("train", *SMALL, f"--workdir={trained.workdir}")
    assert "warm start 1/6" not in done.stdout and "GRPO 1/3" not in done.stdout
    assert (trained.workdir / "metrics.jsonl").read_text() == before


# evaluate


def test_evaluate_repeats_the_runs_own_evaluation(door, trained):
    done = door("evaluate", f"--workdir={trained.workdir}")
    path = trained.workdir / "evaluation" / f"test_{STEPS:06d}.json"
    assert done.stdout.endswith(f"{path}\n")
    assert "pass@1" in done.stdout and "truncated" in done.stdout
    result, after = read(path), read(trained.workdir / "evaluation" / "after.json")
    assert result.pop("name") == f"test_{STEPS:06d}" and after.pop("name") == "after"
    # What the completions depend on, for the same command to go on.
    assert result.pop("settings")["samples"] == result["samples"]
    assert result == after
    interval = result["sampled"]["pass@1"]
    assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
    assert result["completion_tokens_mean"] > 0
    assert 0 <= result["truncated_fraction"] <= 1
    assert len(lines(path.with_suffix(".jsonl"))) == 8 * 2


def test_an_evaluation_shows_itself_alone(door, trained):
    done = door(
        "evaluate",
        f"--config={trained.workdir / 'config.json'}",
        f"--workdir={trained.workdir}",
        "--split=validation",
        "--name=mine",
        "--config.evaluation.samples=1",
    )
    result = read(trained.workdir / "evaluation" / "mine.json")
    assert (result["split"], result["samples"]) == ("validation", 1)
    row = next(line for line in done.stdout.splitlines() if line.startswith("pass@1"))
    assert "points" not in row


# export


def test_export_equals_the_checkpoint(trained, exported):
    config = config_files.of_workdir(trained.workdir)
    model = models.build_model(config)
    params, step = policies.load_params(model, trained.workdir, "latest")
    arch = huggingface.read_architecture(exported)
    assert (step, arch) == (STEPS, model.arch)
    same = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and np.array_equal(a, b),
        params,
        huggingface.load_params(exported, arch),
    )
    assert all(jax.tree.leaves(same))
    start, step = policies.load_params(model, trained.workdir, "start")
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), params, start)
    assert step == 0 and all(jax.tree.leaves(moved))
    assert (exported / "tokenizer.json").exists()


def test_an_exported_model_evaluates_as_the_checkpoint(
    door, trained, exported, tmp_path
):
    door(
        "evaluate",
        *SMALL,
        "--config.warm_start.steps=0",
        f"--config.policy.path={exported}",
        "--config.policy.tokenizer=",
        f"--workdir={tmp_path}",
    )
    result = read(tmp_path / "evaluation" / "test_000000.json")
    after = read(trained.workdir / "evaluation" / "after.json")
    for name in ("sampled", "greedy", "completion_tokens_mean", "truncated_fraction"):
        assert result[name] == after[name]


def test_export_overwrites_nothing(door, trained, exported):
    arguments = (f"--workdir={trained.workdir}", f"--output={exported}")
    done = door("export", *arguments, status=1)
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert str(exported) in done.stderr


# generate


def test_generate_from_stdin_file_and_export(door, trained, exported, tmp_path):
    workdir = f"--workdir={trained.workdir}"
    first = door("generate", workdir, *GREEDY, stdin=PROMPTS).stdout
    assert len(first) > 4 and first.endswith("\n")
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    again = door(
        "generate",
        *SMALL,
        "--config.warm_start.steps=0",
        f"--config.policy.path={exported}",
        f"--workdir={tmp_path / 'none'}",
        f"--file={tmp_path / 'prompts.txt'}",
        *GREEDY,
    ).stdout
    assert again == first


def test_generate_samples(door, trained):
    done = door(
        "generate",
        f"--workdir={trained.workdir}",
        "--prompt=1+2?",
        "--prompt=3+4?",
        "--samples=2",
        "--temperature=1",
        "--checkpoint=start",
    )
    assert done.stderr == ""
    assert len(set(done.stdout.splitlines())) >= 4
    assert all(c == "\n" or c.isprintable() for c in done.stdout)


def test_generate_refuses_a_long_prompt(door, trained):
    prompts = ("--prompt=1+2?", "--prompt=1+2+3+4+5+6+7+8?")
    done = door("generate", f"--workdir={trained.workdir}", *prompts, status=1)
    assert done.stderr == (
        "error: prompt 2 has 16 tokens and this run takes from 1 to 12 "
        "(config.rollout.max_prompt_tokens): '1+2+3+4+5+6+7+8?'\n"
    )


def test_what_a_workdir_does_not_have(trained, tmp_path):
    model = models.build_model(config_files.of_workdir(trained.workdir))
    for which, message in (
        ("17", r"no checkpoint of step 17; it has \[2, 3\]"),
        ("newest", "--checkpoint is 'newest': use latest, best, start or a step"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            policies.load_params(model, trained.workdir, which)
    with pytest.raises(
        FileNotFoundError, match="no warm start of 6 steps: train first"
    ):
        policies.load_params(model, tmp_path, "")
    with pytest.raises(ValueError, match=r"longest completion \(5000\) exceed"):
        model.rollout_setup(5000)


def test_a_checkpoint_of_another_shape_is_named(trained):
    config = config_files.load(str(trained.workdir / "config.json"))
    config.policy.preset = "qwen3-0.6b"
    model = models.build_model(config.seal())
    with pytest.raises(
        ValueError, match="checkpoint 3 in .* is of another model: .* is"
    ):
        policies.load_params(model, trained.workdir, "latest")


# report


def test_report(door, trained, tmp_path):
    output = tmp_path / "page.html"
    door("report", f"--workdir={trained.workdir}", f"--output={output}")
    page = output.read_text()
    assert page.startswith("<!doctype html>") and "brevity" in page and "GRPO" in page
