"""The quickstart's rollouts, training and evaluation need a handful of programs."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

ROOT = pathlib.Path(__file__).parents[1]
# The quickstart with all its shapes, and fewer of its steps.
SCRIPT = """
import json, pathlib, sys
from grpo_jax import config_files
from grpo_jax.rollout import engine
from grpo_jax.trainer import loop

config = config_files.load("configs/quickstart.py")
config.warm_start.steps, config.trainer.steps = 2, 4
config.evaluation.every_steps = 2
loop.train(config.seal(), pathlib.Path(sys.argv[1]))
programs = "prefill catch_up decode_chunk copy grow move row_keys".split()
print(json.dumps({name: getattr(engine, name)._cache_size() for name in programs}))
"""


def test_the_quickstart_compiles_at_most_twelve_engine_programs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    programs = json.loads(done.stdout.splitlines()[-1])
    assert programs["decode_chunk"] == 2  # training and evaluation
    assert sum(programs.values()) <= 12, programs
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    compiled = [json.loads(line)["compile/programs"] for line in lines]
    assert compiled[0] > 0 and compiled[-1] == 0
