"""Every kernel is tested under strict promotion, in float32 unless it asks for more."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
