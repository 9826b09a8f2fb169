"""Narrowing a distribution before a token is drawn: top-k, top-p, min-p."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Halvings of the threshold interval: leaves less than float32 can tell apart.
_BISECTIONS = 24


def keep(
    log_probs: Float[Array, "B V"], *, top_k: int, top_p: float, min_p: float
) -> Bool[Array, "B V"]:
    """Returns which tokens may be drawn; the most likely one always may.

    Filters apply to the distribution as given, and a token must pass all of them.
    Ties at a threshold are kept.

    Args:
      log_probs: normalised log-probabilities, at the sampling temperature.
      top_k: the k most likely; 0 is off.
      top_p: the smallest set of likeliest tokens with at least this mass; 1 is off.
      min_p: at least this fraction of the top probability; 0 is off.
    """
    kept = jnp.ones(log_probs.shape, bool)
    if top_k and top_k < log_probs.shape[-1]:
        lowest = jax.lax.top_k(log_probs, top_k)[0][:, -1:]
        kept &= log_probs >= lowest
    if top_p < 1:
        kept &= log_probs >= _top_p_threshold(log_probs, top_p)
    if min_p > 0:
        top = log_probs.max(axis=-1, keepdims=True)
        kept &= log_probs >= top + jnp.log(jnp.float32(min_p))
    return kept


def _top_p_threshold(
    log_probs: Float[Array, "B V"], top_p: float
) -> Float[Array, "B 1"]:
    """Finds, by bisection and without a sort, the threshold that keeps top_p mass."""
    probs_BV = jnp.exp(log_probs)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        # The mass above `low` reaches top_p; the mass above `high` does not.
        low, high = bounds
        middle = (low + high) / 2
        mass = jnp.where(probs_BV >= middle, probs_BV, 0).sum(-1, keepdims=True)
        enough = mass >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    top = probs_BV.max(axis=-1, keepdims=True)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(top), top))
    # The token nearest above the threshold keeps it exact where tokens tie.
    above = jnp.where(probs_BV >= low, log_probs, jnp.inf)
    return jnp.minimum(above.min(-1, keepdims=True), log_probs.max(-1, keepdims=True))
