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
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file():
    """Lets go of compiled programs: a process may hold 65,530 mapped areas of memory.

    Each program takes some (vm.max_map_count of Linux); those of all tests are more.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)
