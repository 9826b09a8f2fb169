"""Kill a run anywhere and start it again: the numbers are those of an unbroken run."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests import helpers

pytestmark = pytest.mark.system

STEPS = 6
COMMAND = [
    sys.executable,
    "-m",
    "grpo_jax.train",
    *helpers.SMALL_QUICKSTART,
    f"--config.trainer.steps={STEPS}",
    # Two updates a step, against recomputed log-probs, with a reference.
    "--config.trainer.minibatches=2",
    "--config.objective.kl_coef=0.01",
    # Guided, by a length that remembers rewards and what each prompt was worth.
    "--config.guidance.fraction=0.25",
    "--config.guidance.initial=9",
    "--config.guidance.minimum=0",
    "--config.guidance.maximum=16",
    "--config.guidance.delta=2",
    "--config.guidance.per_prompt=true",
    # Groups that agree are made up for, and the limit of completions rises.
    "--config.rollout.zero_variance=refill",
    "--config.rollout.stages.initial_tokens=24",
    "--config.rollout.stages.every_steps=3",
    "--config.rollout.prompts_per_step=6",
    "--config.rollout.group_size=4",
    "--config.evaluation.every_steps=3",
    "--config.evaluation.samples=2",
    "--config.checkpoint.every_steps=2",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One compilation cache for all processes; one device, as a laptop has."""
    cache = tmp_path_factory.mktemp("cache")
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def finish(workdir: pathlib.Path, environment: dict[str, str], *flags: str) -> str:
    done = subprocess.run(
        [*COMMAND, f"--workdir={workdir}", *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_and_kill(
    workdir: pathlib.Path,
    environment: dict[str, str],
    when: Callable[[pathlib.Path], bool],
    signal_number: int = signal.SIGKILL,
) -> int:
    """Runs until `when` says so, sends the signal, and returns the exit status."""
    process = subprocess.Popen(
        [*COMMAND, f"--workdir={workdir}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not when(workdir):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"it never came to be killed: {process.communicate()[1]}")
        time.sleep(0.002)
    process.send_signal(signal_number)
    process.communicate(timeout=200)
    return process.returncode


def lines(path: pathlib.Path) -> list[dict]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")]  # fmt: skip


def reached(step: int, name: str = "metrics.jsonl") -> Callable[[pathlib.Path], bool]:
    return lambda workdir: any(row["step"] >= step for row in lines(workdir / name))


def saving(step: int) -> Callable[[pathlib.Path], bool]:
    """While the checkpoint of a step is half written."""
    return lambda workdir: any(
        (workdir / "checkpoints").glob(f"{step}.orbax-checkpoint-tmp*/*")
    )


def numbers(workdir: pathlib.Path, name: str = "metrics.jsonl") -> list[dict]:
    """Metrics without those that speak of time."""
    return [
        {
            key: value
            for key, value in row.items()
            if not key.startswith(("time/", "compile/")) and "per_second" not in key
        }
        for row in lines(workdir / name)
    ]


def assert_same_run(workdir: pathlib.Path, straight: pathlib.Path):
    """Every recorded number and completion is equal, bit for bit."""
    assert [row["step"] for row in numbers(workdir)] == list(range(1, STEPS + 1))
    assert numbers(workdir) == numbers(straight)
    assert numbers(workdir, "warm_start.jsonl") == numbers(straight, "warm_start.jsonl")
    assert lines(workdir / "tripwires.jsonl") == lines(straight / "tripwires.jsonl")
    for folder in ("rollouts", "evaluation"):
        names = sorted(path.name for path in (straight / folder).iterdir())
        assert sorted(path.name for path in (workdir / folder).iterdir()) == names
        for name in names:
            got = (workdir / folder / name).read_text()
            assert got == (straight / folder / name).read_text(), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory, environment):
    workdir = tmp_path_factory.mktemp("straight")
    finish(workdir, environment)
    return workdir


def test_two_straight_runs_are_equal_and_a_finished_one_stays_so(
    tmp_path, straight, environment
):
    finish(tmp_path, environment)
    assert_same_run(tmp_path, straight)
    # The same command again has nothing left to do but the last evaluation.
    finish(tmp_path, environment)
    assert_same_run(tmp_path, straight)


def test_killed_in_a_save_and_between_saves(tmp_path, straight, environment):
    status = start_and_kill(tmp_path, environment, reached(3, "warm_start.jsonl"))
    assert status == -signal.SIGKILL
    start_and_kill(tmp_path, environment, saving(2))
    start_and_kill(tmp_path, environment, reached(5))
    finish(tmp_path, environment)
    assert_same_run(tmp_path, straight)


def test_sigterm_saves_and_exits_cleanly(tmp_path, straight, environment):
    status = start_and_kill(tmp_path, environment, reached(1), signal.SIGTERM)
    assert status == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped"] == "SIGTERM"
    stopped_at = summary["steps"]
    assert 1 <= stopped_at < STEPS
    assert lines(tmp_path / "metrics.jsonl")[-1]["step"] == stopped_at
    assert (tmp_path / "checkpoints" / str(stopped_at)).is_dir()
    finish(tmp_path, environment)
    assert_same_run(tmp_path, straight)


def test_a_time_budget_stops_in_time_and_resumes(tmp_path, straight, environment):
    output = finish(tmp_path, environment, "--time_budget=1s")
    assert "(time budget): the same command goes on from there" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped"] == "time budget"
    finish(tmp_path, environment)
    assert_same_run(tmp_path, straight)
