"""Strictness for free: eight CPU devices, no silent promotion, no key reuse."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# What was compiled once is not compiled at the next run of the tests.
jax.config.update("jax_compilation_cache_dir", ".pytest_cache/jax")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture
def key():
    return jax.random.key(0)
