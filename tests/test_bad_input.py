"""What a user meets after a mistake: one readable message, and no traceback."""

import errno
import json
import pathlib
import subprocess
import sys

import pytest

from grpo_jax import choices, config_files, config_json
from grpo_jax import config as c
from grpo_jax.trainer import logbook, loop
from grpo_jax.trainer import run as runs

pytestmark = pytest.mark.system

ROOT = pathlib.Path(__file__).parents[1]


def small(**fields) -> c.TrainConfig:
    """The quickstart, smaller, with fields set by path, `__` between the names."""
    config = config_files.load(str(ROOT / "configs" / "quickstart.py"))
    defaults = dict(
        warm_start__steps=0,
        trainer__steps=1,
        rollout__prompts_per_step=4,
        rollout__group_size=4,
        task__arithmetic__train_problems=16,
        task__arithmetic__validation_problems=4,
        task__arithmetic__test_problems=8,
        evaluation__samples=1,
        evaluation__greedy=False,
    )
    for path, value in (defaults | fields).items():
        *sections, name = path.split("__")
        target = config
        for section in sections:
            target = getattr(target, section)
        setattr(target, name, value)
    return config


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# The command line.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.trainer.stepz=1"],
            "--config.trainer.stepz: config.trainer has no field 'stepz'; did you mean "
            "'steps'?",
        ),
        (["--config.trainer.steps=abc"], "steps=abc: it must be a whole number"),
        (["--config.objective.loss=ppo"], "<grpo|bnpo|dr_grpo|dapo|gspo|cispo|sapo|lu"),
        (["--config.reward.weights=1"], 'write it like \'{"accuracy": 1.0'),
        (
            ["--config.reward.weights.acuracy=1"],
            "config.reward.weights has no such name",
        ),
        (
            ["--config.monitor.warn_above.loss/kl=1"],
            "--config.monitor.warn_above has no such name: set all of it, as in "
            "--config.monitor.warn_above='{\"loss/kl\": 1.0}'",
        ),
        (
            ['--config.monitor.warn_above={"loss/totl": 1.0}'],
            "config.monitor.warn_above names 'loss/totl', which no step of this run "
            "has; did you mean 'loss/total'",
        ),
        (["--time_budget=soon"], "--time_budget is 'soon': write it like 8h30m"),
        (["8h"], "unexpected arguments ['8h']: write --flag=value"),
        (["--config.mesh.fsdp=3"], "config.mesh is data="),
    ],
)
def test_the_command_line(tmp_path, arguments, message):
    command = [sys.executable, "-m", "grpo_jax.train"]
    command += ["--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config=configs/quikstart.py"], "did you mean configs/quickstart.py"),
        (
            ["--config.trainer.steps=3"],
            "give it with --config=FILE.py, or --config=WOR",
        ),
        (["--config=configs/quickstart.py"], None),
    ],
)
def test_the_configuration_flag(tmp_path, arguments, message):
    file = tmp_path / "file"
    file.touch()
    workdir = f"--workdir={file / 'run' if message is None else tmp_path / 'run'}"
    command = [sys.executable, "-m", "grpo_jax.train", workdir, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    message = message or f"error: {file / 'run'}: the run cannot be written (Not a dir"
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


# What a configuration names.


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        (
            dict(mesh__data=3, mesh__tensor=5),
            ("config.mesh is data=3, fsdp=1, tensor=5", "15 devices", "are 8"),
        ),
        (
            dict(mesh__tensor=8),
            ("config.mesh.tensor is 8: it must divide the model's",),
        ),
        (
            dict(rollout__max_prompt_tokens=4000),
            ("config.rollout.max_prompt_tokens (4000)", "model's context of", "lower"),
        ),
        (
            dict(evaluation__max_completion_tokens=4000),
            ("longest completion (4000)", "config.evaluation"),
        ),
        (
            dict(rollout__prompts_per_step=3, rollout__group_size=4),
            ("group_size is 12", "config.mesh.data x config.mesh.fsdp, 8"),
        ),
        (dict(policy__preset="tiny"), ("there is no preset 'tiny'", "miniature")),
        (dict(policy__tokenizer="/no/where"), ("/no/where", "config.policy.tokenizer")),
        (dict(policy__path="/no/where"), ("/no/where",)),
        (dict(task__name="arithmetik"), ("did you mean 'arithmetic'",)),
        (
            dict(reward__weights={"acuracy": 1.0}),
            ("unknown reward 'acuracy'", "did you mean 'accuracy'", "'soft_overlong'"),
        ),
        (
            dict(reward__weights={"tests.no_module:f": 1.0}),
            ("reward 'tests.no_module:f': no module 'tests.no_module'",),
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_built(fields, messages):
    with pytest.raises((ValueError, OSError)) as error:
        runs.build(small(**fields).seal())
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(task__use_chat_template=True),
            "has no chat template: set config.task.use",
        ),
        (
            dict(rollout__max_prompt_tokens=7, task__overlong=choices.Overlong.ERROR),
            "config.rollout.max_prompt_tokens is 7: raise it, or set config.task.over",
        ),
        (
            dict(rollout__max_prompt_tokens=7),
            "only 0 of 16 training prompts are left: 16 have more tokens than config.",
        ),
        (dict(task__arithmetic__train_problems=3), "prompts_per_step is 4 and only 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_prompts_that_do_not_fit(tmp_path, fields, message):
    with pytest.raises(ValueError) as error:
        loop.train(small(**fields).seal(), tmp_path)
    assert message in str(error.value)


def test_datasets(tmp_path):
    rows = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(5)]
    good = write_rows(tmp_path / "good.jsonl", rows)
    empty = write_rows(tmp_path / "empty.jsonl", [])
    math = dict(task__name="math", reward__weights={"accuracy": 1.0})
    for fields, message in (
        (dict(task__train_path=good + "x"), "good.jsonlx does not exist"),
        (dict(task__train_path=empty), "empty.jsonl holds no row"),
        (
            dict(task__train_path=good, task__test_path=empty),
            "empty.jsonl holds no row",
        ),
        (dict(task__train_path=good, task__question_column="q"), "has no column 'q'"),
        (dict(task__train_path=good, task__validation_rows=9), "validation_rows is 9"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            runs.build(small(**math, **fields).seal())


# Rewards that misbehave.

REWARDS = """
import math
def raises(completions):
    raise KeyError("gone")
def short(completions):
    return [0.0] * (len(completions) - 1)
def nan(completions):
    return [math.nan] * len(completions)
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "reward 'bad_rewards:raises' raised KeyError('gone')"),
        ("short", "reward 'bad_rewards:short' returned 7 values for 8 completions"),
        ("nan", "reward 'bad_rewards:nan' returned nan for completion 0"),
        ("shrot", "has no attribute 'shrot'; did you mean 'short'"),
    ],
)
def test_rewards_of_a_user(tmp_path, monkeypatch, name, message):
    (tmp_path / "bad_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    config = small(reward__weights={f"bad_rewards:{name}": 1.0})
    with pytest.raises(ValueError) as error:
        loop.train(config.seal(), tmp_path / "run")
    assert message in str(error.value)
    sys.modules.pop("bad_rewards", None)


# Workdirs.


def test_a_workdir_of_another_configuration(tmp_path):
    logbook.open_workdir(tmp_path, small().seal())
    logbook.open_workdir(
        tmp_path, small(trainer__steps=9, evaluation__every_steps=2).seal()
    )
    other = small(seed=3, optimizer__learning_rate=1.0)
    with pytest.raises(ValueError) as error:
        loop.train(other.seal(), tmp_path)
    message = str(error.value)
    assert "config.seed was 0 and is 3" in message
    assert "config.optimizer.learning_rate was 0.0004 and is 1.0" in message
    assert "or another --workdir" in message
    assert "config.trainer.steps" not in message


def test_a_full_disk(tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", no_space)
    with pytest.raises(OSError) as error:
        loop.train(small().seal(), tmp_path / "run")
    assert error.value.filename == str(tmp_path / "run")
    assert "cannot be written (No space left on device)" in error.value.strerror
    assert "set --workdir to a directory that can be written" in error.value.strerror


def test_nothing_logged_and_some_prompts_dropped(tmp_path):
    """Both leave the run alone; the second is told."""
    rows = [{"question": f"{'1+' * (i % 3)}1?", "answer": "1"} for i in range(15)]
    config = small(
        task__name="math",
        task__train_path=write_rows(tmp_path / "rows.jsonl", rows),
        reward__workers=1,
        trainer__logged_groups=0,
        rollout__max_prompt_tokens=4,
        rollout__max_completion_tokens=4,
    )
    (tmp_path / "mine.json").write_text(config_json.to_json(config))
    command = [sys.executable, "-m", "grpo_jax.train"]
    command += [f"--config={tmp_path / 'mine.json'}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list((tmp_path / "run" / "rollouts").iterdir())
    assert "5 of 15 training prompts" in done.stdout
