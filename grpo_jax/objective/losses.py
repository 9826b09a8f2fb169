"""The policy-gradient loss: a surrogate for each token, weighted and summed.

Weights arrive normalised over the whole batch, so the losses and the gradients of its
slices add up to those of the whole, whatever the micro-batch and the mesh.
"""

# jax leaves parts of its own signatures untyped:
# pyright: reportUnknownMemberType=false

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax, nn
from jaxtyping import Array, Bool, Float

from grpo_jax.choices import Divergence, Loss
from grpo_jax.objective import divergences, masked

SAPO_POSITIVE_TEMPERATURE = 1.0
SAPO_NEGATIVE_TEMPERATURE = 1.05


class Diagnostics(NamedTuple):
    """What the loss saw, a value a token, without gradient.

    Attributes:
      importance_ratio: policy over old policy, of the token or of its sequence
        (GSPO, LUSPO); 1 outside the loss and off the policy.
      clipped: whether a bound on the ratio is active; False where it is 1 by the above.
      kl: estimate of KL(policy || reference); 0 outside the loss, off the policy and
        without reference.
    """

    importance_ratio: Float[Array, "B T"]
    clipped: Bool[Array, "B T"]
    kl: Float[Array, "B T"]


def policy_loss(
    log_probs: Float[Array, "B T"],
    old_log_probs: Float[Array, "B T"] | None,
    reference_log_probs: Float[Array, "B T"] | None,
    advantages: Float[Array, " B"],
    weights: Float[Array, "B T"],
    *,
    loss: Loss,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
    kl_coef: float = 0.0,
    divergence: Divergence = Divergence.K3,
    off_policy: Bool[Array, "B T"] | None = None,
    shaping_gamma: float = 0.1,
) -> tuple[Float[Array, ""], Diagnostics]:
    """Computes the loss of some rows of a batch.

        sum_it weights_it (surrogate(ratio_it, A_i) + kl_coef KL_it)

        GRPO, BNPO, DR_GRPO, DAPO   -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)
        GSPO, LUSPO                 the same, r the geometric mean over the sequence
        CISPO                       -stop_gradient(min(r, clip_high)) A log p
        SAPO                        -4/tau sigmoid(tau (r - 1)) A
        off the policy              -p / (p + shaping_gamma) A, whatever the loss

    Losses on the same line differ in their weights alone. A token is in the loss where
    its weight is not 0; whatever the other arrays hold elsewhere changes nothing.

    Args:
      log_probs: of the batch's tokens under the policy; carries the gradient.
      old_log_probs: of the same tokens when the rollout was taken; None with one update
        per rollout, where they equal `log_probs`.
      reference_log_probs: of the same tokens under the reference; None without one.
      advantages: credit of each row.
      weights: from `loss_weights` over the whole batch, or these rows of it.
      loss: the surrogate.
      clip_low: the ratio is held above 1 - clip_low. Not used by CISPO and SAPO.
      clip_high: the ratio is held below 1 + clip_high; CISPO holds it below clip_high
        itself. Not used by SAPO.
      dual_clip: upper bound of the ratio where the advantage is negative, above
        1 + clip_high; 0 is off. Not used by CISPO and SAPO.
      kl_coef: weight of the divergence from the reference, at least 0.
      divergence: its estimator.
      off_policy: True where a token was not drawn by the policy, such as guidance that
        is trained. Such tokens have no ratio, no bounds and no KL, which is estimated
        from what the policy draws; None where there are none.
      shaping_gamma: p at which imitation pulls hardest, above 0.

    Returns:
      The loss, and `Diagnostics`.

    Raises:
      ValueError: `kl_coef` without reference log-probs, or `shaping_gamma` not above 0.

    Source: GRPO (arXiv 2402.03300), Dr. GRPO (2503.20783), DAPO (2503.14476), GSPO
    (2507.18071), CISPO (2506.13585), SAPO (2511.20347), LUSPO (2602.05261), dual clip
    (1912.09729); off the policy LUFFY (2504.14945). Values and gradients on the policy
    are those of TRL 1.16, whose `delta` is `dual_clip`: its `level: sequence` with loss
    `grpo` is GSPO, and its CISPO has no lower bound. Deviation: ratios are capped at
    exp(`MAX_LOG_RATIO`), with gradient 0 above, where float32 would overflow.
    """
    if kl_coef and reference_log_probs is None:
        raise ValueError(
            f"kl_coef is {kl_coef} but reference_log_probs is None: give the "
            "reference's log-probs or set kl_coef to 0"
        )
    if shaping_gamma <= 0:
        raise ValueError(f"shaping_gamma is {shaping_gamma}: it must be above 0")
    mask = weights != 0
    on_policy = mask if off_policy is None else mask & ~off_policy
    log_probs = jnp.where(mask, log_probs, 0)
    old = lax.stop_gradient(log_probs) if old_log_probs is None else old_log_probs
    log_ratio = jnp.where(on_policy, log_probs - old, 0)
    advantages_B1 = advantages[:, None]
    match loss:
        case Loss.GRPO | Loss.BNPO | Loss.DR_GRPO | Loss.DAPO:
            ratio = _ratio(log_ratio)
            surrogate, clipped = _clipped(
                ratio, advantages_B1, clip_low, clip_high, dual_clip
            )
        case Loss.GSPO | Loss.LUSPO:
            mean_B1 = masked.mean(log_ratio, on_policy, axis=1, keepdims=True)
            ratio = _ratio(jnp.broadcast_to(mean_B1, log_ratio.shape))
            surrogate, clipped = _clipped(
                ratio, advantages_B1, clip_low, clip_high, dual_clip
            )
        case Loss.CISPO:
            ratio = _ratio(log_ratio)
            coefficient = lax.stop_gradient(divergences.cap(ratio, clip_high))
            surrogate = -coefficient * advantages_B1 * log_probs
            clipped = ratio > clip_high
        case Loss.SAPO:
            ratio = _ratio(log_ratio)
            surrogate = _soft_gated(ratio, advantages_B1)
            clipped = jnp.zeros_like(mask)
    if off_policy is not None:
        shaped = _shaped(log_probs, advantages_B1, shaping_gamma)
        surrogate = jnp.where(off_policy, shaped, surrogate)
    if reference_log_probs is None:
        kl = jnp.zeros_like(log_probs)
    else:
        kl = divergences.divergence(
            jnp.where(on_policy, log_probs, 0),
            jnp.where(on_policy, reference_log_probs, 0),
            kind=divergence,
        )
    token_losses = surrogate + kl_coef * kl if kl_coef else surrogate
    diagnostics = Diagnostics(jnp.where(on_policy, ratio, 1), clipped & on_policy, kl)
    return masked.sum(weights * token_losses, mask), lax.stop_gradient(diagnostics)


def _ratio(log_ratio: Float[Array, "B T"]) -> Float[Array, "B T"]:
    """Exponentiates without overflow."""
    return jnp.exp(divergences.cap(log_ratio, divergences.MAX_LOG_RATIO))


def _clipped(
    ratio: Float[Array, "B T"],
    advantages: Float[Array, "B 1"],
    clip_low: float,
    clip_high: float,
    dual_clip: float,
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Returns the pessimistic surrogate, and where a bound decided it.

    At a bound the gradient is that of the unclipped ratio, as with torch's clamp;
    `jnp.clip` would halve it.
    """
    low, high = 1 - clip_low, 1 + clip_high
    inside = jnp.where(ratio < low, low, divergences.cap(ratio, high))
    clipped = jnp.where(advantages > 0, ratio > high, ratio < low) & (advantages != 0)
    if dual_clip:
        clipped |= (ratio > dual_clip) & (advantages < 0)
        ratio = divergences.cap(ratio, dual_clip)
    return -jnp.minimum(ratio * advantages, inside * advantages), clipped


def _soft_gated(
    ratio: Float[Array, "B T"], advantages: Float[Array, "B 1"]
) -> Float[Array, "B T"]:
    """Returns the surrogate whose gate closes smoothly as the ratio leaves 1."""
    temperature_B1 = jnp.where(
        advantages > 0, SAPO_POSITIVE_TEMPERATURE, SAPO_NEGATIVE_TEMPERATURE
    ).astype(ratio.dtype)
    gate = 4 / temperature_B1 * nn.sigmoid(temperature_B1 * (ratio - 1))
    return -gate * advantages


def _shaped(
    log_probs: Float[Array, "B T"], advantages: Float[Array, "B 1"], gamma: float
) -> Float[Array, "B T"]:
    """Returns the surrogate of tokens that another wrote: -p / (p + gamma) A."""
    # The same without exponentials that overflow or vanish.
    return -nn.sigmoid(log_probs - math.log(gamma)) * advantages
