"""Credit of a completion: its reward measured against its group."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from grpo_jax.choices import Advantage
from grpo_jax.objective import masked


def group_advantages(
    rewards: Float[Array, " B"],
    *,
    group_size: int,
    kind: Advantage,
    epsilon: float,
) -> Float[Array, " B"]:
    """Computes the advantage of every row over the others of its group.

        GROUP_STD      (r - group mean) / (group std + epsilon)
        GROUP_MEAN      r - group mean
        BATCH_STD      (r - group mean) / (batch std + epsilon)
        LEAVE_ONE_OUT   r - mean of the others = n / (n - 1) (r - group mean)

    Means, deviations (unbiased) and n are over the rows that have a reward.

    Args:
      rewards: one number a row, the rows of a group adjacent; NaN where a row has no
        reward.
      group_size: rows of a group; divides B.
      kind: what a reward is measured against.
      epsilon: added to the deviation, at least 0.

    Returns:
      The advantages, summing to 0 over a group where the deviation is the group's or
      none. Exactly 0 where a row has no reward, where a group has fewer than two, and
      where they are all equal.

    Raises:
      ValueError: `group_size` does not divide the rows.

    Source: GROUP_STD is DeepSeekMath (arXiv 2402.03300) section 4.1.2, with an epsilon
    and an unbiased deviation; GROUP_MEAN is Dr. GRPO (2503.20783); LEAVE_ONE_OUT is
    RLOO (2402.14740).
    """
    rows = rewards.shape[0]
    if group_size < 1 or rows % group_size:
        raise ValueError(f"group_size is {group_size}: it must divide the {rows} rows")
    rewards_NG = rewards.reshape(-1, group_size)
    valid_NG = ~jnp.isnan(rewards_NG)
    # Equal rewards must give exactly 0, but a rounded mean of .1s is not .1:
    # measured from the group's best they are exact zeros before the mean is taken.
    best_N1 = masked.max(rewards_NG, valid_NG, axis=1, keepdims=True)
    shifted_NG = rewards_NG - best_N1
    mean_N1 = masked.mean(shifted_NG, valid_NG, axis=1, keepdims=True)
    centred_NG = jnp.where(valid_NG, shifted_NG - mean_N1, 0)
    match kind:
        case Advantage.GROUP_MEAN:
            scaled_NG = centred_NG
        case Advantage.GROUP_STD:
            std_N1 = masked.std(shifted_NG, valid_NG, axis=1, keepdims=True)
            scaled_NG = _divide(centred_NG, std_N1 + epsilon)
        case Advantage.BATCH_STD:
            std_11 = masked.std(rewards_NG, valid_NG, keepdims=True)
            scaled_NG = _divide(centred_NG, std_11 + epsilon)
        case Advantage.LEAVE_ONE_OUT:
            count_N1 = jnp.sum(valid_NG, axis=1, keepdims=True, dtype=rewards.dtype)
            scaled_NG = _divide(centred_NG * count_N1, count_N1 - 1)
    return scaled_NG.reshape(rows)


def _divide(
    values_NG: Float[Array, "N G"], scale: Float[Array, "#N #G"]
) -> Float[Array, "N G"]:
    """Divides, and leaves values as they are where the scale is not positive."""
    return values_NG / jnp.where(scale > 0, scale, 1)
