"""The pytrees that cross a jit boundary, and the origin code every token carries."""

import enum
from typing import Any

from flax import struct
from jaxtyping import Bool, Float, Int, PyTree, UInt8

# Records are filled on the host and read on the devices: NumPy or JAX arrays.
Array = Any


class Origin(enum.IntEnum):
    """Where a token came from. Loss weights are derived from it, nowhere else."""

    PAD = 0  # no token
    PROMPT = 1  # the question
    SAMPLED = 2  # drawn from the policy
    GUIDANCE = 3  # prefix of an expert's reasoning
    EXPERT = 4  # written by an expert in the policy's place
    OBSERVATION = 5  # written by the environment
    FORCED = 6  # put in by the program, such as a closing tag


class Trajectories(struct.PyTreeNode):
    """B = N*G finished rows, on the host; the G rows of one prompt are adjacent.

    A row is its prompt and its completion without a gap, then padding.

    Attributes:
      tokens: token ids.
      origins: `Origin` code of every token; PAD past the end of the row.
      behavior_log_probs: log-probability under the sampler's full distribution at the
        sampling temperature; of an expert's tokens what the expert is known to have
        given them, else 0 where a token was not sampled.
      kept_log_mass: log of the probability that top-k, top-p and min-p left to draw
        from; 0 without filters and where a token was not sampled.
      prompt_lengths: tokens of the prompt.
      lengths: tokens of the prompt and the completion together.
      finished: whether the row ended by an end-of-sequence token, not by a limit.
    """

    tokens: Int[Array, "B T"]
    origins: UInt8[Array, "B T"]
    behavior_log_probs: Float[Array, "B T"]
    kept_log_mass: Float[Array, "B T"]
    prompt_lengths: Int[Array, " B"]
    lengths: Int[Array, " B"]
    finished: Bool[Array, " B"]


class TrainBatch(struct.PyTreeNode):
    """What one optimizer update reads: rows of `Trajectories` with their credit.

    Or a micro-batch of them, in which rows of nothing but padding may follow. Every
    per-token array is aligned with `tokens`: column t speaks of token t.

    Attributes:
      tokens: token ids, right padded.
      origins: `Origin` codes.
      prompt_lengths: tokens of the prompt.
      advantages: credit of the row's completion.
      loss_weights: weight of each token in the loss, normalised over the whole batch,
        so that the loss is a plain weighted sum however the batch is sliced.
      old_log_probs: log-probs when the rollout was taken; `None` with one update per
        rollout, where they equal the current ones.
      reference_log_probs: log-probs of the frozen reference; `None` without a KL term.
      behavior_log_probs: what the sampler recorded, or the expert.
    """

    tokens: Int[Array, "B T"]
    origins: UInt8[Array, "B T"]
    prompt_lengths: Int[Array, " B"]
    advantages: Float[Array, " B"]
    loss_weights: Float[Array, "B T"]
    behavior_log_probs: Float[Array, "B T"]
    old_log_probs: Float[Array, "B T"] | None = None
    reference_log_probs: Float[Array, "B T"] | None = None


class TrainState(struct.PyTreeNode):
    """Everything an update changes. Also holds its shapes, or its shardings.

    Attributes:
      params: master weights, float32, layers stacked on the leading axis.
      opt_state: optimizer state, float32, sharded as the weights are.
      step: GRPO steps taken, int32.
      updates: optimizer updates taken, int32; `step` with one update per rollout.
    """

    params: PyTree
    opt_state: PyTree
    step: PyTree
    updates: PyTree
