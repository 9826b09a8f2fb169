"""Estimators of KL(policy || reference) from the tokens the policy drew."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from grpo_jax.choices import Divergence

# exp(20) is 5e8: no ratio of two probabilities that means anything is larger, and its
# square still fits in float32.
MAX_LOG_RATIO = 20.0


def divergence(
    log_probs: Float[Array, "*S"],
    reference_log_probs: Float[Array, "*S"],
    *,
    kind: Divergence,
) -> Float[Array, "*S"]:
    """Computes a one-sample estimate of KL(policy || reference) for every token.

        d = log reference - log policy
        K1    -d             unbiased, high variance, either sign
        K2    d^2 / 2        biased, low variance; its gradient is that of the KL
        K3    e^d - d - 1    unbiased, low variance, never negative

    Args:
      log_probs: of sampled tokens under the policy, at most 0; carries the gradient.
      reference_log_probs: of the same tokens under the reference, at most 0.
      kind: the estimator.

    Returns:
      The estimates, in nats. K3 is constant above d = `MAX_LOG_RATIO`.

    Source: Schulman, "Approximating KL Divergence" (2020); K3 is DeepSeekMath
    (arXiv 2402.03300) equation 4.
    """
    log_ratio = reference_log_probs - log_probs
    match kind:
        case Divergence.K1:
            return -log_ratio
        case Divergence.K2:
            return jnp.square(log_ratio) / 2
        case Divergence.K3:
            bounded = cap(log_ratio, MAX_LOG_RATIO)
            # expm1 keeps the digits that exp(d) - 1 loses next to 0.
            return jnp.expm1(bounded) - bounded


def cap(values: Float[Array, "*S"], high: float) -> Float[Array, "*S"]:
    """Computes min(values, high), with gradient 1 up to and at the bound, 0 above.

    `jnp.minimum` and `jnp.clip` halve the gradient at the bound.
    """
    return jnp.where(values > high, high, values)
