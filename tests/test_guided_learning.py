"""Guidance while something is learned: copying four digits, from noisy examples."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]


def train(workdir, *flags):
    subprocess.run(
        [
            *(sys.executable, "-m", "grpo_jax.train", "--config=tests/copying.py"),
            f"--workdir={workdir}",
            *flags,
        ],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},  # one device, all optimisations
        check=True,
        timeout=300,
    )
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def mean(metrics, key):
    return np.mean([line[key] for line in metrics])


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("adaptive")
    return workdir, train(workdir)


def test_more_of_the_trace_makes_the_base_right_more_often(adaptive):
    ladder = json.loads((adaptive[0] / "guidance_ladder.json").read_text())
    means = [rung["mean"] for rung in ladder["rungs"]]
    assert means[-1] > means[0] + 0.3
    assert means[-1] == max(means)


def test_guidance_falls_as_the_policy_learns(adaptive):
    _, metrics = adaptive
    first, last = metrics[:4], metrics[-8:]
    key = "guidance/reward_unguided"
    assert mean(last, key) > mean(first, key) + 0.2
    assert mean(last, "guidance/length") < mean(first, "guidance/length") - 2


def test_guiding_every_row_of_a_group_leaves_less_to_compare(adaptive, tmp_path):
    flags = ["--config.guidance.fraction=1.0", "--config.guidance.length=fixed"]
    flags += ["--config.guidance.initial=8", "--config.trainer.steps=6"]
    everyone = train(tmp_path, *flags)
    some = adaptive[1][:6]
    key = "reward/std_in_group"
    assert mean(everyone, key) < 0.8 * mean(some, key)
