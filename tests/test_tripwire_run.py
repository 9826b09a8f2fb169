"""A run that a tripwire stops, what it leaves, and how it goes on."""

import json

import pytest

from grpo_jax import config_files
from grpo_jax.trainer import metric_names
from tests import helpers

pytestmark = pytest.mark.system

STEPS, GROUPS, GROUP_SIZE = 3, 4, 4
COMMAND = (
    *helpers.SMALL_QUICKSTART,
    f"--config.trainer.steps={STEPS}",
    f"--config.rollout.prompts_per_step={GROUPS}",
    f"--config.rollout.group_size={GROUP_SIZE}",
    "--config.trainer.logged_groups=1",
    # All that adds metrics.
    "--config.objective.kl_coef=0.01",
    "--config.guidance.fraction=0.25",
    "--config.guidance.initial=9",
    "--config.guidance.minimum=0",
    "--config.guidance.maximum=16",
    "--config.evaluation.every_steps=2",
    "--config.evaluation.samples=2",
    # Always true, and the only rule.
    "--config.monitor.warn_above={}",
    "--config.monitor.steps=2",
)
STOP = '--config.monitor.stop_above={"policy/entropy": 0.0}'
DUMP = "000002_stop_above_policy-entropy.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path_factory):
    """One device, and one compilation cache for all processes."""
    for name, value in {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_rule_stops_a_run_which_then_needs_another_rule(tmp_path):
    workdir = tmp_path / "run"

    def train(*flags):
        return helpers.run_door("train", *COMMAND, *flags, f"--workdir={workdir}")

    done = train(STOP)
    assert done.returncode == 0, done.stderr
    assert "above 0 (config.monitor.stop_above) for 2 steps" in done.stdout
    assert "the run saves and stops" in done.stdout
    assert (
        "--config.monitor.stop_above={} for none, the same command goes"
        in (done.stdout.splitlines()[-2])
    )
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["stopped"].startswith("tripwire: policy/entropy is ")
    assert (workdir / "checkpoints" / "2").is_dir()

    (record,) = lines(workdir / "tripwires.jsonl")
    metrics = lines(workdir / "metrics.jsonl")
    assert (record["step"], record["dump"]) == (2, DUMP)
    assert record["values"] == [row["policy/entropy"] for row in metrics]
    dumped = lines(workdir / "tripped" / DUMP)
    assert [(row["group"], row["sample"]) for row in dumped] == [
        (group, sample) for group in range(GROUPS) for sample in range(GROUP_SIZE)
    ]
    assert dumped[:GROUP_SIZE] == lines(workdir / "rollouts" / "000002.jsonl")
    assert f'href="tripped/{DUMP}"' in (workdir / "report.html").read_text()

    # Every name that a run writes can be watched, and no other.
    config = config_files.of_workdir(workdir).seal()
    written = set().union(*metrics) - {"step"}
    known = metric_names.of_run(config)
    assert written <= known
    of_known_devices = {"rollout/bandwidth_fraction", "trainer/model_flops_fraction"}
    assert known - written == of_known_devices

    again = train(STOP)
    assert again.returncode == 1 and "would run on into the same wall" in again.stderr
    assert [row["step"] for row in lines(workdir / "metrics.jsonl")] == [1, 2]

    done = train("--config.monitor.stop_above={}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads((workdir / "summary.json").read_text())
    assert (summary["steps"], summary["stopped"]) == (STEPS, "finished")
    assert lines(workdir / "tripwires.jsonl") == [record]
