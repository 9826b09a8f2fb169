import contextlib
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from grpo_jax.policy import compilation
from grpo_jax.policy.compilation import CompileLog


def test_programs_are_counted_once_and_by_those_who_ask():
    with contextlib.closing(CompileLog()) as first:
        jax.jit(lambda x: x + 1.25)(jnp.ones(3))
        seen = first.take()
        assert seen["compile/programs"] >= 1 and seen["compile/seconds"] > 0
        assert first.take() == {"compile/programs": 0, "compile/seconds": 0.0}
    jax.jit(lambda x: x + 2.25)(jnp.ones(3))
    assert first.take()["compile/programs"] == 0


def test_a_second_run_counts_nothing():
    function, x = jax.jit(lambda x: x * 3.5), jnp.ones(3)
    function(x)
    with contextlib.closing(CompileLog()) as log:
        function(x)
        assert log.take()["compile/programs"] == 0


PROGRAM = """
import jax
from grpo_jax.policy import compilation
compilation.use_persistent_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x @ x)(jax.numpy.ones((64, 64))).block_until_ready()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("told", [False, True])
def test_programs_are_kept_in_the_users_cache_unless_told_where(tmp_path, told):
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    if told:
        own["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | own,
        check=True,
        capture_output=True,
        text=True,
    )
    folder = pathlib.Path(done.stdout.strip())
    assert any(folder.iterdir())
    expected = tmp_path / "elsewhere" if told else tmp_path / "cache" / "grpo_jax"
    assert folder.is_relative_to(expected)


def test_machines_that_differ_have_caches_that_differ(monkeypatch):
    here = compilation._machine()
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_: "flags : other")
    monkeypatch.setattr(pathlib.Path, "exists", lambda *_: True)
    assert compilation._machine() != here
