"""From scored trajectories to the micro-batches an update reads, on the host.

Rows of one update differ much in length. They are sorted by it and cut into
micro-batches of about as many token slots each, so that few slots are padding and all
passes cost the same.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig, TrainConfig
from grpo_jax.objective import weights
from grpo_jax.objective.advantages import group_advantages
from grpo_jax.records import Origin, TrainBatch, Trajectories

# Every shape is a program to compile. Widths are multiples of an eighth of the longest
# row, and of 8; the last micro-batch has as many rows as the others of its width, or
# this part of them.
_WIDTHS, _WIDTH_MULTIPLE = 8, 8
_TAILS = (4, 2, 1)


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
    guidance: choices.GuidanceLoss = choices.GuidanceLoss.MASK,
    group_size: int = 1,
    experts: choices.ExpertLoss | None = None,
) -> TrainBatch:
    """Returns the rows of one update with their loss weights.

    Args:
      trajectories: the rows.
      rewards: NaN where a row has none.
      advantages: of the rows.
      config: the loss.
      max_completion_tokens: for the aggregation that divides by it.
      guidance: what the loss does with guidance tokens.
      group_size: rows of a group, for the aggregation that averages groups.
      experts: what the loss does with rows of experts; None where there are none.

    Rows without a reward, and truncated rows if the configuration masks them, have no
    weight; the normalisation is over the rows given here.
    """
    trained = weights.guidance_origins(guidance)[0]
    if experts is not None:
        trained += weights.expert_origins(experts)[0]
    row_mask = ~np.isnan(rewards)
    if config.mask_truncated:
        row_mask &= trajectories.finished
    return TrainBatch(
        tokens=trajectories.tokens,
        origins=trajectories.origins,
        prompt_lengths=trajectories.prompt_lengths,
        advantages=advantages,
        loss_weights=np.asarray(
            _loss_weights(
                trajectories.origins,
                row_mask,
                loss=config.loss,
                aggregation=config.aggregation,
                max_completion_tokens=max_completion_tokens,
                group_size=group_size,
                trained=trained,
            )
        ),
        behavior_log_probs=trajectories.behavior_log_probs,
    )


def supervised_weights(origins: UInt8[np.ndarray, "B T"]) -> Float[np.ndarray, "B T"]:
    """Returns the weights of demonstrations: the mean over the expert's tokens."""
    return np.asarray(_supervised_weights(origins))


def default_micro_batch_tokens(backend: str) -> int:
    """Returns a device's token slots of a micro-batch if the configuration names none.

    Args:
      backend: "cpu", "gpu" or "tpu".
    """
    return 2048 if backend == "cpu" else 16_384


def micro_batches(
    batch: TrainBatch, *, widest: int, budget_tokens: int, row_shards: int
) -> list[TrainBatch]:
    """Cuts the rows of an update into micro-batches, longest rows first.

    Each is as wide as its longest row, rounded up to one of few widths, and has as many
    rows as the budget allows at that width. The last one is filled with rows that are
    all padding and have no weight.

    Args:
      batch: the rows of one update, on the host.
      widest: columns that the longest possible row would need.
      budget_tokens: slots of a micro-batch, rows times width. Rows that are wider are
        taken one for each device.
      row_shards: number of devices that split the rows; it divides those of every
        micro-batch.
    """
    order = _longest_first(batch)
    lengths = _lengths(batch)[order]
    most = -(-len(order) // row_shards)
    micros, first = [], 0
    while first < len(order):
        width = round_width(int(lengths[first]), widest)
        whole = max(1, min(budget_tokens // (width * row_shards), most))
        sizes = [-(-whole // part) * row_shards for part in _TAILS]
        left = len(order) - first
        rows = next((size for size in sizes if size >= left), sizes[-1])
        micros.append(_take(batch, order[first : first + rows], rows, width))
        first += rows
    return micros


def padding_fraction(micros: Sequence[TrainBatch]) -> float:
    """Returns the share of the slots of micro-batches that hold no token."""
    slots = sum(micro.origins.size for micro in micros)
    return 1 - sum(int(_lengths(micro).sum()) for micro in micros) / slots


def in_order(
    batch: TrainBatch, values: Sequence[np.ndarray]
) -> Float[np.ndarray, "B T"]:
    """Returns per-token values of the micro-batches of a batch as the batch lies.

    Args:
      batch: what `micro_batches` cut.
      values: [rows, width] for each micro-batch, in their order.
    """
    rows, columns = batch.tokens.shape
    joined = np.zeros((rows, columns), np.float32)
    order, first = _longest_first(batch), 0
    for part in values:
        chosen = order[first : first + len(part)]
        first += len(part)
        width = min(part.shape[1], columns)
        joined[chosen, :width] = part[: len(chosen), :width]
    return joined


def round_width(longest: int, widest: int) -> int:
    """Returns the number of columns to train on: a few sizes, up to the widest."""
    quantum = -(-widest // _WIDTHS)
    quantum = -(-quantum // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
    return min(-(-longest // quantum) * quantum, widest)


def _longest_first(batch: TrainBatch) -> Int[np.ndarray, " B"]:
    """Returns the rows by falling length; equally long ones keep their order."""
    return np.argsort(-_lengths(batch), kind="stable")


def _lengths(batch: TrainBatch) -> Int[np.ndarray, " B"]:
    return np.count_nonzero(batch.origins != Origin.PAD, axis=1)


def _take(
    batch: TrainBatch, chosen: Int[np.ndarray, " n"], rows: int, width: int
) -> TrainBatch:
    """Returns the chosen rows of a batch, of this width and filled up to `rows`."""

    def one(values: np.ndarray) -> np.ndarray:
        per_row = values.ndim == 1
        taken = values[chosen] if per_row else values[chosen, :width]
        missing = [(0, rows - len(taken))]
        if not per_row:
            missing.append((0, width - taken.shape[1]))
        return np.pad(taken, missing)

    taken = jax.tree.map(one, batch)
    # A row of padding has a prompt too: every position is predicted by one before it.
    return taken.replace(prompt_lengths=np.maximum(taken.prompt_lengths, 1))


_advantages = functools.partial(
    jax.jit, static_argnames=("group_size", "kind", "epsilon")
)(group_advantages)


@functools.partial(
    jax.jit,
    static_argnames=(
        *("loss", "aggregation", "max_completion_tokens", "group_size", "trained"),
    ),
)
def _loss_weights(
    origins: jax.Array,
    row_mask: jax.Array,
    *,
    trained: tuple[Origin, ...] = (Origin.SAMPLED,),
    **options: Any,
) -> jax.Array:
    mask = weights.loss_mask(origins, row_mask, trained=trained)
    return weights.loss_weights(mask, **options).astype(jnp.float32)


@jax.jit
def _supervised_weights(origins: jax.Array) -> jax.Array:
    mask = weights.loss_mask(origins, trained=(Origin.EXPERT,))
    return weights.loss_weights(
        mask,
        loss=choices.Loss.DAPO,
        aggregation=choices.Aggregation.TOKEN_MEAN,
        max_completion_tokens=1,
    ).astype(jnp.float32)
