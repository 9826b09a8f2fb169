"""Agents that search, through the doors: trained, stopped, resumed, evaluated."""

import json
import pathlib

import pytest

from grpo_jax import config_files
from grpo_jax.reporting.turns import turns_of
from grpo_jax.trainer import metric_names
from tests import helpers

pytestmark = pytest.mark.system

FLAGS = (
    "--config=configs/david_grpo.py",
    "--config.task.world.entities=64",
    "--config.task.world.train_questions=32",
    "--config.task.world.validation_questions=4",
    "--config.task.world.test_questions=4",
    "--config.warm_start.steps=8",
    "--config.warm_start.batch_size=8",
    "--config.warm_start.demonstrations=16",
    "--config.rollout.prompts_per_step=4",
    "--config.rollout.group_size=4",
    "--config.rollout.max_completion_tokens=400",
    "--config.episode.turn_tokens=12",
    "--config.experts.below=1.0",
    "--config.experts.replay=true",
    "--config.rollout.easy_fraction=0.25",
    "--config.expansion.continuations=2",
    "--config.evaluation.every_steps=0",
    "--config.evaluation.greedy=false",
    "--config.checkpoint.every_steps=1",
)
# Costs are weighed, and charged to nobody: hardly any answer is right yet.
BUDGET = (
    "--config.budget.call_cost=1",
    "--config.budget.document_cost=1",
    "--config.budget.token_cost=1",
    "--config.budget.free_by_evidence=true",
    "--config.budget.right_reward=exact_match",
    "--config.budget.initial_beta=0.1",
    "--config.budget.beta_rate=0.01",
    "--config.budget.target_cost=0.5",
    "--config.budget.near_duplicate=0.9",
    "--config.budget.redundancy_penalty=0.1",
    "--config.budget.probe_tokens=8",  # in evaluations
)


def train(workdir, *flags):
    done = helpers.run_door("train", *FLAGS, f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_times(lines):
    return [
        {
            key: value
            for key, value in line.items()
            if not key.startswith(("time/", "compile/"))
            and "second" not in key
            and key != "retrieval/asked"  # what the cache held is not kept
            and key != "retrieval/cache_hits"
        }
        for line in lines
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[pathlib.Path, list[dict]]:
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(workdir, *BUDGET, "--config.trainer.steps=2")


def test_a_step_says_what_its_agents_did(whole):
    workdir, lines = whole
    config = config_files.of_workdir(workdir)
    for line in lines:
        unknown = line.keys() - {"step"} - metric_names.of_run(config)
        assert not unknown
        assert line["episode/calls_mean"] >= 0 and line["episode/failed_fraction"] == 0
        assert line["expert/seeded_fraction"] > 0.5  # hardly anything is right yet
        assert line["expert/nll"] > 0 and line["expert/failed_fraction"] == 0
        assert line["expert/coverage_mean"] > 0.9
        assert line["rollout/easy_fraction"] == 0.25
        # Every group goes on, and what it asks then is not among the rollouts' calls.
        assert line["expansion/expanded_fraction"] == 1
        assert line["expansion/continuations"] == 8
        assert line["retrieval/queries"] >= line["episode/calls_mean"] * 16
        assert 0 < line["expansion/generated_tokens"] < line["rollout/generated_tokens"]
    rows = [
        json.loads(line)
        for line in (workdir / "rollouts" / "000001.jsonl").read_text().splitlines()
    ]
    replaced = [row for row in rows if row["advantage"] is None]
    instead = [row for row in rows if "note" in row]
    assert len(replaced) == len(instead) >= lines[0]["expert/seeded_fraction"] * 4
    assert all(row["advantage"] is not None and row["turns"] for row in instead)
    sampled = [
        end - start
        for row in rows
        for origin, start, end in row["spans"]
        if origin == "sampled" and "note" not in row
    ]
    drawn = lines[0]["rollout/generated_tokens"]
    assert sum(sampled) == drawn - lines[0]["expansion/generated_tokens"]
    shown = [row for row in rows for span in row["spans"] if span[0] == "observation"]
    assert shown  # notices at least: most queries cannot be read yet
    for row in rows:
        assert len(row["evidence"]) == len(row["gold_titles"]) == row["tier"]
        written = [turn["parts"] for turn in turns_of(row)]
        assert [text for [[_, text]] in written] == [t["text"] for t in row["turns"]]


def test_a_stopped_run_goes_on_with_the_same_numbers(whole, tmp_path):
    # Stopped by what it had written by then, which counts as an end of its own.
    limit = "--config.trainer.max_generated_tokens"
    first = train(tmp_path, *BUDGET, "--config.trainer.steps=2", f"{limit}=1")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["stopped"], summary["steps"], len(first)) == ("finished", 1, 1)
    assert summary["evaluation"]["after"]["step"] == 1
    again = train(tmp_path, *BUDGET, "--config.trainer.steps=2", f"{limit}=0")
    assert without_times(again) == without_times(whole[1])


def test_a_budget_that_nobody_pays_changes_no_number(whole, tmp_path):
    plain = train(tmp_path, "--config.trainer.steps=2")
    for line, old in zip(whole[1], plain, strict=True):
        assert all(name.startswith("budget/") for name in line.keys() - old.keys())
        assert line["budget/penalty_mean"] is None  # no answer is right
        kept = {name: line[name] for name in old}
        assert without_times([kept]) == without_times([old])
    first, second = (line["budget/beta"] for line in whole[1])
    cost = whole[1][0]["budget/cost_mean"]
    assert first == 0.1 and second == 0.1 + 0.01 * (cost - 0.5)


def test_what_is_charged_is_written_down_and_calls_are_capped(tmp_path):
    charged = (*BUDGET, "--config.budget.right_reward=search_format")
    (line,) = train(
        tmp_path,
        *charged,
        "--config.budget.first_calls=1",
        "--config.budget.exit_confidence=1e-6",
        "--config.budget.exit_in_training=true",
        "--config.experts.below=0",
        "--config.trainer.steps=1",
    )
    assert (
        not line.keys()
        - {"step"}
        - metric_names.of_run(config_files.of_workdir(tmp_path))
    )
    assert line["budget/max_calls"] == 1 and line["episode/calls_max"] <= 1
    assert 0 <= line["budget/exit_fraction"] <= 1 and "budget/probe_tokens" in line
    rows = (tmp_path / "rollouts" / "000001.jsonl").read_text().splitlines()
    costs = [json.loads(row)["cost"] for row in rows]
    assert len(costs) == 16 and all(json.loads(row)["penalty"] >= 0 for row in rows)
    assert sum(costs) / len(costs) == pytest.approx(line["budget/cost_mean"])


def test_episodes_are_evaluated(whole):
    workdir, _ = whole
    done = helpers.run_door("evaluate", f"--workdir={workdir}", "--name=again")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((workdir / "evaluation" / "again.json").read_text())
    after = json.loads((workdir / "evaluation" / "after.json").read_text())
    assert found["sampled"] == after["sampled"]
    lines = (workdir / "evaluation" / "again.jsonl").read_text().splitlines()
    assert all("text" in turn for line in lines for turn in json.loads(line)["turns"])
    assert found["evidence_recall_mean"] == after["evidence_recall_mean"]
    assert found["early_exit"] == after["early_exit"]
    assert found["early_exit"]["exit_fraction"] == 0
    assert found["watched"].keys() == {"answer_f1", "evidence_recall"}
    assert found["episode"]["calls_mean"] == found["calls_mean"]
    assert found["episode"]["coverage_mean"] == found["evidence_recall_mean"]
    assert found["sampled_tokens_mean"] <= found["completion_tokens_mean"]
    hops = found["by"]["hops"]
    assert sum(part["problems"] for part in hops.values()) == found["problems"]
    rows = map(json.loads, lines)
    assert {row["parts"]["hops"] for row in rows} == hops.keys()


def test_generate_shows_episodes_about_other_documents(whole, tmp_path):
    workdir, _ = whole
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "Yan Penn.txt").write_text("home New Wharf")
    done = helpers.run_door(
        "generate",
        f"--config={workdir / 'config.json'}",
        f"--workdir={workdir}",
        f"--config.retrieval.corpus_path={tmp_path / 'notes'}",
        "--prompt=mayor of home of Yan Penn?",
        "--samples=48",
        "--temperature=1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    samples = done.stdout.split("--------\n")
    assert len(samples) == 48 and len(set(samples)) > 24
    shown = "<information>The query could not be read.</information>\n"
    assert shown in done.stdout or "Yan Penn: home New Wharf" in done.stdout
    assert (tmp_path / "notes.bm25" / "manifest.json").is_file()
