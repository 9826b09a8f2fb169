"""Attention over a shared and an own part is softmax over both, one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.policy import cached_attention

P, K = 3, 8


def arguments(n, T, H, J, C=5, S=7):
    """Random float64 inputs of `attend`; the second prompt is empty."""
    rng = np.random.default_rng(0)
    mask = rng.random((P * n, T, S)) < 0.5
    mask[..., 0] = True
    shared_mask = np.arange(C)[None] < np.array([[C], [0], [2]])
    return (
        2 * rng.normal(size=(P * n, T, H, K)),
        rng.normal(size=(P * n, J, K, S)),
        rng.normal(size=(P * n, J, S, K)),
        mask,
        rng.normal(size=(P, J, K, C)),
        rng.normal(size=(P, J, C, K)),
        shared_mask,
    )


def plain(query, key, value, mask, shared_key, shared_value, shared_mask):
    """One head and one query at a time, over the concatenated keys."""
    B, T, H, _ = query.shape
    n, R = B // P, H // key.shape[1]
    mixed = np.zeros(query.shape)
    for b, t, h in np.ndindex(B, T, H):
        p, j = b // n, h // R
        keys = np.concatenate([shared_key[p, j].T, key[b, j].T])
        values = np.concatenate([shared_value[p, j], value[b, j]])
        seen = np.concatenate([shared_mask[p], mask[b, t]])
        scores = keys[seen] @ query[b, t, h] / np.sqrt(K)
        weights = np.exp(scores - scores.max())
        mixed[b, t, h] = weights / weights.sum() @ values[seen]
    return mixed


def attend(inputs, dtype=jnp.float32):
    cast = [jnp.asarray(x, bool if x.dtype == bool else dtype) for x in inputs]
    return jax.jit(cached_attention.attend)(*cast)


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize(("H", "J"), [(4, 4), (6, 2), (4, 1)])
def test_both_parts_meet_in_one_softmax(n, T, H, J):
    inputs = arguments(n, T, H, J)
    np.testing.assert_allclose(attend(inputs), plain(*inputs), atol=2e-6)


def test_there_may_be_no_shared_part():
    inputs = arguments(2, 3, 4, 2, C=0)
    np.testing.assert_allclose(attend(inputs), plain(*inputs), atol=2e-6)


def test_either_part_may_hold_nearly_all_the_weight():
    """The maximum is the larger one of both: exponentials neither vanish nor burst."""
    for index in (1, 4):
        inputs = list(arguments(2, 1, 4, 2))
        inputs[index] = 60 * inputs[index]
        np.testing.assert_allclose(attend(inputs), plain(*inputs), atol=2e-6)


def test_what_the_masks_hide_changes_nothing():
    inputs = list(arguments(2, 3, 4, 2))
    before = attend(inputs)
    seen = inputs[3].any(axis=1)[:, None, None]
    shared_seen = inputs[6][:, None, None]
    assert not seen.all() and not shared_seen.all()
    for index, kept in ((1, seen), (2, seen), (4, shared_seen), (5, shared_seen)):
        kept = kept if index in (1, 4) else kept.swapaxes(2, 3)
        inputs[index] = np.where(kept, inputs[index], 1e4)
    np.testing.assert_array_equal(attend(inputs), before)


def test_bfloat16_costs_little_more_than_rounding_the_result():
    """Two softmaxes merged by log-sum-exps in bfloat16 err by half as much again."""
    inputs = arguments(4, 3, 6, 2, C=300, S=200)
    rounded = [
        x if x.dtype == bool else np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
        for x in inputs
    ]
    got = np.asarray(attend(inputs, jnp.bfloat16), np.float64)
    assert np.abs(got - plain(*rounded)).mean() < 2**-11
