import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.policy import attention
from grpo_jax.policy.presets import RopeScaling
from tests import helpers

ARCH = helpers.TINY


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def slow_attend(query, key, value, mask):
    """One head, one query at a time."""
    B, T, H, K = query.shape
    group = H // key.shape[1]
    mixed = np.zeros((B, T, H, K))
    for b in range(B):
        for t in range(T):
            for h in range(H):
                scores = key[b, h // group] @ query[b, t, h] / np.sqrt(K)
                scores = np.where(mask[b, t], scores, -np.inf)
                weights = np.exp(scores - scores.max())
                mixed[b, t, h] = weights / weights.sum() @ value[b, h // group]
    return mixed


def test_attention_equals_the_slow_one_under_any_mask():
    query = random(2, 5, 6, 8)
    key, value = random(2, 3, 7, 8, seed=1), random(2, 3, 7, 8, seed=2)
    mask = np.random.default_rng(3).random((2, 5, 7)) < 0.5
    mask[..., 0] = True
    expected = slow_attend(*(np.asarray(x) for x in (query, key, value)), mask)
    got = attention.attend(query, key, value, jnp.asarray(mask))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_causal_attention_sees_the_past_and_only_the_past():
    """Some gradient from the past and the present; exactly none from the future."""
    query, key, value = random(1, 6, 4, 8), random(1, 6, 2, 8), random(1, 6, 2, 8)

    def third(key, value):
        return attention.causal(query, key, value)[0, 2].sum()

    for gradient in jax.grad(third, argnums=(0, 1))(key, value):
        size = np.abs(np.asarray(gradient)).sum((0, 2, 3))
        assert (size[:3] > 0).all()
        assert (size[3:] == 0).all()


def test_rotation_is_a_rotation_of_pairs_by_position():
    x = random(1, 4, 1, 8)
    positions = jnp.array([[0, 1, 2, 40]], jnp.int32)
    rotation = attention.Rotation.at(positions, ARCH)
    got = np.asarray(attention.rotate(x, rotation))[0, :, 0]
    for t, position in enumerate([0, 1, 2, 40]):
        for pair in range(4):
            angle = position * ARCH.rope_theta ** (-2 * pair / 8)
            a, b = np.asarray(x)[0, t, 0, [pair, pair + 4]]
            turned = [
                a * np.cos(angle) - b * np.sin(angle),
                b * np.cos(angle) + a * np.sin(angle),
            ]
            np.testing.assert_allclose(got[t, [pair, pair + 4]], turned, atol=1e-5)


def test_scores_depend_on_distance_alone():
    query, key = random(1, 1, 1, 8), random(1, 1, 1, 8, seed=1)

    def score(q, k):
        by_q, by_k = (
            attention.Rotation.at(jnp.array([[p]], jnp.int32), ARCH) for p in (q, k)
        )
        turned = attention.rotate(query, by_q) * attention.rotate(key, by_k)
        return float(turned.sum())

    np.testing.assert_allclose(score(5, 2), score(43, 40), atol=1e-5)


def test_llama3_scaling_slows_long_waves_and_keeps_short_ones():
    scaling = RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_tokens=64
    )
    arch = dataclasses.replace(ARCH, head_dim=8, rope_scaling=scaling)
    plain = attention._frequencies(dataclasses.replace(arch, rope_scaling=None))
    scaled = attention._frequencies(arch)
    # Frequencies 1, .1, .01, .001 turn 10.2, 1.02, .1 and .01 times in 64 tokens.
    np.testing.assert_allclose(scaled[0], plain[0])
    blend = (64 * 0.1 / (2 * np.pi) - 1) / 3
    np.testing.assert_allclose(scaled[1], 0.1 * (blend + (1 - blend) / 8), rtol=1e-6)
    np.testing.assert_allclose(scaled[2:], plain[2:] / 8)
