import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.rollout import filtering

OFF = dict(top_k=0, top_p=1.0, min_p=0.0)
PROBS = np.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]])


def kept(probs, **options):
    return np.asarray(
        filtering.keep(jnp.log(jnp.asarray(probs, jnp.float32)), **{**OFF, **options})
    )


def slow_top_p(probs, top_p):
    """The definition: sort, and keep until the mass is reached."""
    mask = np.zeros_like(probs, bool)
    for row, out in zip(probs, mask, strict=True):
        mass = 0.0
        for index in np.argsort(-row):
            out[index] = True
            mass += row[index]
            if mass >= top_p:
                break
    return mask


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), [1, 1, 1, 1]),
        (dict(top_k=1), [1, 0, 0, 0]),
        (dict(top_k=3), [1, 1, 1, 0]),
        (dict(top_k=9), [1, 1, 1, 1]),
        (dict(top_p=0.4), [1, 0, 0, 0]),
        (dict(top_p=0.6), [1, 1, 0, 0]),
        (dict(top_p=0.9), [1, 1, 1, 0]),
        (dict(min_p=0.5), [1, 1, 0, 0]),
        (dict(min_p=1.0), [1, 0, 0, 0]),
        (dict(top_k=3, min_p=0.5), [1, 1, 0, 0]),
    ],
)
def test_literal_filters(options, expected):
    result = kept(PROBS, **options)
    np.testing.assert_array_equal(result[0], np.array(expected, bool))
    np.testing.assert_array_equal(result[1], np.array(expected, bool)[::-1])


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.8, 0.95, 0.99])
def test_top_p_by_bisection_equals_top_p_by_sorting(top_p):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 500)) * 3
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    np.testing.assert_array_equal(kept(probs, top_p=top_p), slow_top_p(probs, top_p))


def test_the_most_likely_token_is_always_kept():
    probs = np.full((1, 7), 1 / 7)
    assert kept(probs, top_p=1e-6, min_p=1.0, top_k=1).any()
