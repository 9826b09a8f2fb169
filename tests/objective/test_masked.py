import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.objective import masked

VALUES = [[1.0, 2.0, 4.0], [8.0, -16.0, 32.0], [5.0, 6.0, 7.0]]
MASK = [[True, True, False], [False, True, True], [False, False, False]]
REDUCTIONS = [masked.sum, masked.mean, masked.std, masked.max]


def test_literals():
    values, mask = jnp.array(VALUES), jnp.array(MASK)
    np.testing.assert_array_equal(masked.sum(values, mask, axis=1), [3, 16, 0])
    np.testing.assert_array_equal(masked.mean(values, mask, axis=1), [1.5, 8, 0])
    np.testing.assert_array_equal(masked.max(values, mask, axis=1), [2, 32, 0])
    np.testing.assert_allclose(
        masked.std(values, mask, axis=1), [0.5**0.5, 1152**0.5, 0], rtol=1e-6
    )
    assert masked.sum(values, mask) == 19
    assert masked.mean(values, mask) == 4.75


def test_maximum_of_negative_entries_is_not_the_masked_zero():
    assert (
        masked.max(jnp.array([-3.0, -2.0, 9.0]), jnp.array([True, True, False])) == -2
    )


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("ddof", [0, 1])
def test_matches_numpy(axis, ddof):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 7)).astype(np.float32)
    mask = rng.random((6, 7)) < 0.6
    arrays = jnp.asarray(values), jnp.asarray(mask)
    where = {"axis": axis, "where": mask}
    cases = [
        (masked.sum(*arrays, axis=axis), values.sum(**where)),
        (masked.mean(*arrays, axis=axis), values.mean(**where)),
        (masked.std(*arrays, axis=axis, ddof=ddof), values.std(**where, ddof=ddof)),
        (masked.max(*arrays, axis=axis), values.max(**where, initial=-9.0)),
    ]
    for actual, expected in cases:
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_keepdims_keeps_them(reduce):
    values, mask = jnp.array(VALUES), jnp.array(MASK)
    assert reduce(values, mask, axis=1, keepdims=True).shape == (3, 1)
    assert reduce(values, mask, keepdims=True).shape == (1, 1)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_empty_mask_gives_zero_and_no_gradient(reduce):
    mask = jnp.zeros(3, bool)
    value, gradient = jax.value_and_grad(reduce)(jnp.array([1.0, 2.0, 3.0]), mask)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_masked_garbage_reaches_neither_value_nor_gradient(reduce, garbage):
    mask = jnp.array([True, True, True, False])
    clean = jax.value_and_grad(reduce)(jnp.array([1.0, 2.0, 4.0, 0.0]), mask)
    dirty = jax.value_and_grad(reduce)(jnp.array([1.0, 2.0, 4.0, garbage]), mask)
    np.testing.assert_array_equal(dirty[0], clean[0])
    np.testing.assert_array_equal(dirty[1], clean[1])
    assert dirty[1][3] == 0


def test_std_of_equal_entries_has_zero_gradient():
    mask = jnp.ones(3, bool)
    np.testing.assert_array_equal(jax.grad(masked.std)(jnp.full(3, 2.0), mask), 0)
    assert masked.std(jnp.array([5.0, 9.0]), jnp.array([True, False])) == 0


def test_a_quantile_is_one_of_the_selected_entries():
    values = jnp.array([[5.0, 1.0, np.inf], [4.0, 2.0, 3.0]])
    mask = jnp.array([[True, True, False], [True, True, True]])
    fractions = {0.01: 1, 0.2: 1, 0.21: 2, 0.6: 3, 0.99: 5, 1.0: 5}
    for fraction, expected in fractions.items():
        assert masked.quantile(values, mask, fraction) == expected
    assert masked.quantile(values, jnp.zeros_like(mask), 0.5) == 0
