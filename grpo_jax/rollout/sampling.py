"""Drawing a token from a distribution, by two uniform numbers and no sort."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from grpo_jax import records
from grpo_jax.config import SamplingConfig
from grpo_jax.rollout import filtering

# Tokens of a block: a draw first picks a block, then a token inside it.
_BLOCK = 128


class Sampling(struct.PyTreeNode):
    """How tokens are drawn. See `SamplingConfig`.

    The temperature is data, so that greedy and sampled decoding are one program.

    Attributes:
      temperature: 0 takes the most likely token.
      top_k: 0 is off.
      top_p: 1 is off.
      min_p: 0 is off.
    """

    temperature: float | records.Array
    top_k: int = struct.field(pytree_node=False, default=0)
    top_p: float = struct.field(pytree_node=False, default=1.0)
    min_p: float = struct.field(pytree_node=False, default=0.0)

    @classmethod
    def of(cls, config: SamplingConfig) -> "Sampling":
        """Returns the sampling a configuration asks for."""
        return cls(config.temperature, config.top_k, config.top_p, config.min_p)


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], sampling: Sampling
) -> tuple[Int[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Draws one token a row.

    Args:
      logits: float32.
      keys: the noise of each row.
      sampling: temperature and filters.

    Returns:
      The tokens; their log-probabilities under the full distribution at the sampling
      temperature (1 where it is 0); and the log of the mass the filters kept, which
      subtracted from the former gives the log-probability of what was drawn from.
    """
    greedy = jnp.asarray(sampling.temperature) == 0
    scaled_BV = logits / jnp.where(greedy, 1.0, sampling.temperature)
    largest_B1 = scaled_BV.max(axis=-1, keepdims=True)
    masses_BV = jnp.exp(scaled_BV - largest_B1)
    total_B1 = masses_BV.sum(axis=-1, keepdims=True)
    log_mass = jnp.zeros(logits.shape[0])
    if sampling.top_k or sampling.top_p < 1 or sampling.min_p:
        kept_BV = filtering.keep(
            scaled_BV - largest_B1 - jnp.log(total_B1),
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
        )
        masses_BV = jnp.where(kept_BV, masses_BV, 0)
        kept_mass = jnp.log(masses_BV.sum(axis=-1) / total_B1[:, 0])
        log_mass = jnp.where(greedy, 0.0, jnp.minimum(kept_mass, 0.0))
    uniforms_B2 = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    tokens = jnp.where(
        greedy, first_of(scaled_BV == largest_B1), draw(masses_BV, uniforms_B2)
    )
    chosen = jnp.take_along_axis(scaled_BV, tokens[:, None], axis=1)
    log_probs = (chosen - largest_B1 - jnp.log(total_B1))[:, 0]
    return tokens.astype(jnp.int32), log_probs, log_mass


def draw(
    masses: Float[Array, "B V"], uniforms: Float[Array, "B 2"]
) -> Int[Array, " B"]:
    """Returns one index a row, in proportion to its mass.

    The first number picks a block of indices by its mass, the second an index within
    it: two short cumulative sums instead of noise for the whole vocabulary, and each
    keeps the resolution of float32.

    Args:
      masses: not negative, not all 0; an index without mass is never returned.
      uniforms: in [0, 1).
    """
    B, V = masses.shape
    blocks_BNW = jnp.pad(masses, ((0, 0), (0, -V % _BLOCK))).reshape(B, -1, _BLOCK)
    block = _invert(blocks_BNW.sum(axis=-1), uniforms[:, 0])
    inside_BW = jnp.take_along_axis(blocks_BNW, block[:, None, None], axis=1)[:, 0]
    return block * _BLOCK + _invert(inside_BW, uniforms[:, 1])


def _invert(masses: Float[Array, "B N"], uniforms: Float[Array, " B"]) -> Array:
    """Returns where the cumulative mass first exceeds its `uniforms` fraction."""
    # Rounding may leave an edge above its successors, the last one included: edges of
    # no mass are left out, so that the target stays below the edge of one with mass.
    edges_BN = jnp.where(masses > 0, jnp.cumsum(masses, axis=-1), 0)
    target_B1 = uniforms[:, None] * edges_BN.max(axis=-1, keepdims=True)
    return first_of(edges_BN > target_B1)


def first_of(mask: Bool[Array, "B N"]) -> Int[Array, " B"]:
    """Returns the first True of each row; the last index where there is none.

    A minimum is many times faster on a CPU than `argmax`, which compares pairs.
    """
    N = mask.shape[-1]
    return jnp.where(mask, jnp.arange(N)[None], N - 1).min(axis=-1)
