"""Rotary positions, and attention of queries over keys that a mask allows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from grpo_jax.policy.presets import Architecture, RopeScaling


def attend(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B J S K"],
    value: Float[Array, "B J S K"],
    mask: Bool[Array, "#B T S"],
) -> Float[Array, "B T H K"]:
    """softmax(query key^T / sqrt(K)) value, softmax in float32.

    The R = H / J query heads of one key-value head are laid side by side along T, so
    that both products are plain batched matmuls.

    Args:
      query: rotated queries.
      key: rotated keys, key-value head before slot.
      value: values, laid out as `key`.
      mask: True where query t may see slot s; every row needs one True.
    """
    B, T, H, K = query.shape
    J = key.shape[1]
    query_BJRTK = query.reshape(B, T, J, H // J, K).transpose(0, 2, 3, 1, 4)
    query_BJQK = query_BJRTK.reshape(B, J, H // J * T, K)
    scores_BJQS = jnp.einsum(
        "bjqk,bjsk->bjqs", query_BJQK, key, preferred_element_type=jnp.float32
    )
    scores_BJRTS = scores_BJQS.reshape(B, J, H // J, T, -1) * K**-0.5
    scores_BJRTS = jnp.where(mask[:, None, None], scores_BJRTS, -jnp.inf)
    weights = jax.nn.softmax(scores_BJRTS, axis=-1).astype(value.dtype)
    weights_BJQS = weights.reshape(B, J, H // J * T, -1)
    mixed_BJQK = jnp.einsum("bjqs,bjsk->bjqk", weights_BJQS, value)
    mixed_BJRTK = mixed_BJQK.reshape(B, J, H // J, T, K)
    return mixed_BJRTK.transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)


def causal(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B T J K"],
    value: Float[Array, "B T J K"],
) -> Float[Array, "B T H K"]:
    """Attention of each token over itself and what precedes it.

    Rows are right padded, so padding lies in the future of every real token and needs
    no mask of its own.
    """
    T = query.shape[1]
    mask = jnp.tril(jnp.ones((T, T), bool))[None]
    return attend(query, key.swapaxes(1, 2), value.swapaxes(1, 2), mask)


class Rotation(NamedTuple):
    """Cosine and sine of the angles by which the K / 2 pairs of a head are turned."""

    cos: Float[Array, "#B T k"]
    sin: Float[Array, "#B T k"]

    @classmethod
    def at(cls, positions: Int[Array, "#B T"], arch: Architecture) -> "Rotation":
        """Returns the rotation of each position: made once, used by every layer."""
        frequencies = jnp.asarray(_frequencies(arch), jnp.float32)
        angles_BTk = positions.astype(jnp.float32)[..., None] * frequencies[None, None]
        return cls(jnp.cos(angles_BTk), jnp.sin(angles_BTk))


def rotate(x: Float[Array, "B T H K"], by: Rotation) -> Float[Array, "B T H K"]:
    """Rotates each head, the two halves of K as pairs.

    Source: arXiv 2104.09864, in the half-split layout of the Hugging Face models.
    """
    cos, sin = by.cos[:, :, None], by.sin[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def _frequencies(arch: Architecture) -> np.ndarray:
    """Radians per position of each of the K/2 pairs."""
    exponents = np.arange(0, arch.head_dim, 2) / arch.head_dim
    frequencies = arch.rope_theta**-exponents
    if arch.rope_scaling is None:
        return frequencies
    return _scale_llama3(frequencies, arch.rope_scaling)


def _scale_llama3(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Slows long wavelengths by `factor`, keeps short ones, blends between."""
    wavelengths = 2 * np.pi / frequencies
    turns = scaling.original_max_tokens / wavelengths
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = np.clip((turns - low) / (high - low), 0, 1)
    return keep * frequencies + (1 - keep) * frequencies / scaling.factor
