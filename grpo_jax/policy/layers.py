"""Single layers of the decoder, as Linen modules.

A block is told how to attend: it hands `attend` its queries, keys and values. Training
passes causal attention over the row; decoding passes attention over the cache. So one
block serves both, and nothing here knows of a cache.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from grpo_jax.policy import attention, remat
from grpo_jax.policy.presets import Architecture
from grpo_jax.policy.product import dot_general

Attend = Callable[[Array, Array, Array], Array]


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, in float32. Source: arXiv 1910.07467."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Returns the normed activations in the dtype of `x`."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.epsilon)
        scale = jnp.asarray(scale, x.dtype)
        return normed.astype(x.dtype) * scale.reshape((1,) * (x.ndim - 1) + (-1,))


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    architecture: Architecture

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], rotation: attention.Rotation, attend: Attend
    ) -> Float[Array, "B T D"]:
        """Returns the attention's contribution to the residual stream."""
        arch = self.architecture

        def heads(name: str, count: int) -> Array:
            features, bias = (count, arch.head_dim), arch.attention_bias
            dense = nn.DenseGeneral(
                features,
                use_bias=bias,
                dtype=x.dtype,
                dot_general=dot_general,
                name=name,
            )
            return remat.name_input(dense(x))

        query = heads("query", arch.num_heads)
        key = heads("key", arch.num_kv_heads)
        value = heads("value", arch.num_kv_heads)
        if arch.qk_norm:
            query = RMSNorm(arch.norm_epsilon, name="query_norm")(query)
            key = RMSNorm(arch.norm_epsilon, name="key_norm")(key)
        query = attention.rotate(query, rotation)
        key = attention.rotate(key, rotation)
        mixed_BTHK = attend(query, key, value)
        return nn.DenseGeneral(
            arch.model_dim,
            axis=(-2, -1),
            use_bias=False,
            dtype=x.dtype,
            dot_general=dot_general,
            name="output",
        )(mixed_BTHK)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)). Source: arXiv 2002.05202."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Returns the feed-forward contribution to the residual stream."""

        def dense(name: str, features: int) -> nn.Dense:
            return nn.Dense(
                features,
                use_bias=False,
                dtype=x.dtype,
                dot_general=dot_general,
                name=name,
            )

        width = self.architecture.feed_forward_dim
        gated = nn.silu(dense("gate", width)(x)) * dense("up", width)(x)
        return dense("down", self.architecture.model_dim)(gated)


class Block(nn.Module):
    """One pre-norm decoder layer."""

    architecture: Architecture

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], rotation: attention.Rotation, attend: Attend
    ) -> Float[Array, "B T D"]:
        """Returns the residual stream after attention and feed-forward."""
        arch = self.architecture
        normed = RMSNorm(arch.norm_epsilon, name="attention_norm")(x)
        x = x + Attention(arch, name="attention")(normed, rotation, attend)
        normed = RMSNorm(arch.norm_epsilon, name="feed_forward_norm")(x)
        return x + FeedForward(arch, name="feed_forward")(normed)
