"""How much each token counts in the loss, from where it came.

This is the only place where origins become loss weights. Weights are normalised here,
over the whole batch, so that the loss of any slice of it is a plain weighted sum and
slices add up to the whole.
"""

# jax leaves parts of its own signatures untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Collection

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8

from grpo_jax.choices import Aggregation, ExpertLoss, GuidanceLoss, Loss
from grpo_jax.records import Origin


def loss_mask(
    origins: UInt8[Array, "B T"],
    row_mask: Bool[Array, " B"] | None = None,
    *,
    trained: Collection[Origin] = (Origin.SAMPLED,),
) -> Bool[Array, "B T"]:
    """Selects the tokens that are trained, by who wrote them.

    Args:
      origins: `Origin` codes.
      row_mask: False for rows to leave out, such as truncated completions and rows
        without a reward; None keeps all.
      trained: whose tokens: those the policy drew itself, and what
        `guidance_origins` adds; EXPERT for supervised training on demonstrations.

    Returns:
      True where a token is in the loss.
    """
    mask = jnp.zeros(origins.shape, bool)
    for origin in trained:
        mask |= origins == origin.value
    return mask if row_mask is None else mask & row_mask[:, None]


def guidance_origins(
    treatment: GuidanceLoss,
) -> tuple[tuple[Origin, ...], tuple[Origin, ...]]:
    """Returns whose tokens are trained, and whose of them off the policy.

    Args:
      treatment: what the loss does with guidance.

    Returns:
      What `loss_mask` takes as `trained` for the loss weights, and for the `off_policy`
      of `losses.policy_loss`. Guidance in the loss counts in the lengths of its
      completions too.

    Source: MASK and INCLUDE are the readings of G2RPO-A (arXiv 2508.13023), whose
    released program does the latter; OFF_POLICY is LUFFY's (2504.14945).
    """
    match treatment:
        case GuidanceLoss.MASK:
            return (Origin.SAMPLED,), ()
        case GuidanceLoss.INCLUDE:
            return (Origin.SAMPLED, Origin.GUIDANCE), ()
        case GuidanceLoss.OFF_POLICY:
            return (Origin.SAMPLED, Origin.GUIDANCE), (Origin.GUIDANCE,)


def expert_origins(
    treatment: ExpertLoss,
) -> tuple[tuple[Origin, ...], tuple[Origin, ...]]:
    """Returns what experts add to the two results of `guidance_origins`.

    Args:
      treatment: what the loss does with rows of experts.

    Source: ON_POLICY is David-GRPO (arXiv 2601.21699), whose program takes old
    log-probs of these rows from the policy itself; OFF_POLICY is LUFFY (2504.14945);
    IMPORTANCE is the former, with old log-probs of whoever wrote the row.
    """
    match treatment:
        case ExpertLoss.ON_POLICY | ExpertLoss.IMPORTANCE:
            return (Origin.EXPERT,), ()
        case ExpertLoss.OFF_POLICY:
            return (Origin.EXPERT,), (Origin.EXPERT,)


def loss_weights(
    mask: Bool[Array, "B T"],
    *,
    loss: Loss,
    aggregation: Aggregation,
    max_completion_tokens: int,
    group_size: int = 1,
) -> Float[Array, "B T"]:
    """Computes the weight of every token, normalised over the whole batch.

        SEQUENCE_MEAN     1 / (rows * tokens of the row)
        TOKEN_MEAN        1 / tokens of the batch
        CONSTANT          1 / (rows * max_completion_tokens)
        SEQUENCE_SUM      1 / rows
        GROUP_TOKEN_MEAN  1 / (groups * tokens of the group)

    Only tokens in the mask count, and only rows and groups that have one: what is left
    out of the sum is left out of the denominator too.

    Args:
      mask: True where a token is in the loss, for the whole batch.
      loss: what PUBLISHED refers to.
      aggregation: how per-token losses become one number.
      max_completion_tokens: token limit of a completion, at least 1.
      group_size: rows of a group, which are adjacent; for GROUP_TOKEN_MEAN.

    Returns:
      Weights in the default float dtype, 0 outside the mask; all 0 for an empty mask.

    Source: GRPO (arXiv 2402.03300), GSPO (2507.18071) and SAPO (2511.20347) average
    sequences; DAPO (2503.14476) and CISPO (2506.13585) average tokens; Dr. GRPO
    (2503.20783) divides by a constant; LUSPO (2602.05261) sums over the sequence. TRL
    averaged groups before 2025-04, where each device held one of them (Open-RS).
    """
    tokens_B1 = jnp.sum(mask, axis=1, keepdims=True, dtype=float)
    rows = jnp.maximum(jnp.sum(tokens_B1 > 0, dtype=float), 1)
    published = aggregation is Aggregation.PUBLISHED
    match published_aggregation(loss) if published else aggregation:
        case Aggregation.SEQUENCE_MEAN:
            denominator = rows * jnp.maximum(tokens_B1, 1)
        case Aggregation.TOKEN_MEAN:
            denominator = jnp.maximum(jnp.sum(tokens_B1, keepdims=True), 1)
        case Aggregation.CONSTANT:
            denominator = (rows * max_completion_tokens)[None, None]
        case Aggregation.SEQUENCE_SUM:
            denominator = rows[None, None]
        case Aggregation.GROUP_TOKEN_MEAN:
            tokens_N1 = tokens_B1.reshape(-1, group_size).sum(axis=1, keepdims=True)
            groups = jnp.maximum(jnp.sum(tokens_N1 > 0, dtype=float), 1)
            tokens_B1 = jnp.repeat(tokens_N1, group_size, axis=0)
            denominator = groups * jnp.maximum(tokens_B1, 1)
        case Aggregation.PUBLISHED:
            raise AssertionError("resolved above")
    return jnp.where(mask, 1 / denominator, 0)


def published_aggregation(loss: Loss) -> Aggregation:
    """Returns the aggregation that belongs to a loss, as its authors wrote it."""
    match loss:
        case Loss.GRPO | Loss.GSPO | Loss.SAPO:
            return Aggregation.SEQUENCE_MEAN
        case Loss.BNPO | Loss.DAPO | Loss.CISPO:
            return Aggregation.TOKEN_MEAN
        case Loss.DR_GRPO:
            return Aggregation.CONSTANT
        case Loss.LUSPO:
            return Aggregation.SEQUENCE_SUM
