"""From scored trajectories to the batch an update reads, on the host."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig, TrainConfig
from grpo_jax.objective import weights
from grpo_jax.objective.advantages import group_advantages
from grpo_jax.records import Origin, TrainBatch, Trajectories

# Row widths are rounded up to this share of the widest, so that few programs compile.
_WIDTHS = 4


def advantages_of(
    rewards: Float[np.ndarray, " B"], config: TrainConfig
) -> Float[np.ndarray, " B"]:
    """Returns each row's advantage; NaN rewards get 0."""
    advantages = _advantages(
        rewards.astype(np.float32),
        group_size=config.rollout.group_size,
        kind=config.objective.advantage,
        epsilon=config.objective.advantage_epsilon,
    )
    return np.asarray(advantages)


def make_batch(
    trajectories: Trajectories,
    rewards: Float[np.ndarray, " B"],
    advantages: Float[np.ndarray, " B"],
    config: ObjectiveConfig,
    max_completion_tokens: int,
) -> TrainBatch:
    """Returns the rows of one update with their loss weights, cut to what they need.

    Rows without a reward, and truncated rows if the configuration masks them, have no
    weight; the normalisation is over the rows given here.
    """
    width = trim_width(int(trajectories.lengths.max()), trajectories.tokens.shape[1])
    origins = trajectories.origins[:, :width]
    row_mask = ~np.isnan(rewards)
    if config.mask_truncated:
        row_mask &= trajectories.finished
    return TrainBatch(
        tokens=trajectories.tokens[:, :width],
        origins=origins,
        prompt_lengths=trajectories.prompt_lengths,
        advantages=advantages,
        loss_weights=np.asarray(
            _loss_weights(
                origins,
                row_mask,
                loss=config.loss,
                aggregation=config.aggregation,
                max_completion_tokens=max_completion_tokens,
            )
        ),
        behavior_log_probs=trajectories.behavior_log_probs[:, :width],
    )


def supervised_weights(origins: UInt8[np.ndarray, "B T"]) -> Float[np.ndarray, "B T"]:
    """Returns the weights of demonstrations: the mean over the expert's tokens."""
    return np.asarray(_supervised_weights(origins))


def trim_width(longest: int, widest: int) -> int:
    """Returns the number of columns to train on: a few sizes, up to the widest."""
    quantum = -(-widest // _WIDTHS)
    return min(-(-longest // quantum) * quantum, widest)


_advantages = functools.partial(
    jax.jit, static_argnames=("group_size", "kind", "epsilon")
)(group_advantages)


@functools.partial(
    jax.jit, static_argnames=("loss", "aggregation", "max_completion_tokens")
)
def _loss_weights(origins: jax.Array, row_mask: jax.Array, **options: Any) -> jax.Array:
    mask = weights.loss_mask(origins, row_mask)
    return weights.loss_weights(mask, **options).astype(jnp.float32)


@jax.jit
def _supervised_weights(origins: jax.Array) -> jax.Array:
    mask = weights.loss_mask(origins, trained=Origin.EXPERT)
    return weights.loss_weights(
        mask,
        loss=choices.Loss.DAPO,
        aggregation=choices.Aggregation.TOKEN_MEAN,
        max_completion_tokens=1,
    ).astype(jnp.float32)
