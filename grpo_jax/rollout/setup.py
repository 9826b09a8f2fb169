"""What every rollout of a model has in common, and the count of what one did."""

import dataclasses

import jax

from grpo_jax import choices
from grpo_jax.policy.presets import Architecture


@dataclasses.dataclass(frozen=True)
class Setup:
    """A model's sampler: what it runs on, and what bounds the shapes it compiles.

    Attributes:
      arch: the shape of the model.
      mesh: rows are split over its devices.
      dtype: of the weights and the cache.
      attention: kernel of the prefill.
      eos_ids: tokens that end a completion.
      max_prompt_tokens: longest prompt.
      max_completion_tokens: longest completion.
      max_rows: most rows decoded at once; a multiple of `shards`.
      chunk_steps: decode steps between two looks at which rows are done.
    """

    arch: Architecture
    mesh: jax.sharding.Mesh
    dtype: choices.Dtype
    attention: choices.Attention
    eos_ids: tuple[int, ...]
    max_prompt_tokens: int
    max_completion_tokens: int
    max_rows: int
    chunk_steps: int

    @property
    def columns(self) -> int:
        """Tokens of the longest row."""
        return self.max_prompt_tokens + self.max_completion_tokens

    @property
    def shards(self) -> int:
        """Groups of devices that each hold their part of the rows."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]


@dataclasses.dataclass
class RolloutStats:
    """What was done in a rollout.

    Attributes:
      sampled_tokens: tokens drawn.
      decode_slots: rows times steps that were decoded, live or not.
      decode_steps: steps of the loop.
      decode_seconds: time in the loop.
      decode_bytes: weights, keys and values that the loop read.
      prefill_tokens: prompt and spliced tokens the model was shown.
      prefill_slots: those and their padding.
      halvings: times the grid was halved.
      refills: rows that took a place given up by another.
    """

    sampled_tokens: int = 0
    decode_slots: int = 0
    decode_steps: int = 0
    decode_seconds: float = 0.0
    decode_bytes: int = 0
    prefill_tokens: int = 0
    prefill_slots: int = 0
    halvings: int = 0
    refills: int = 0


def bucket(size: int, maximum: int, *, least: int = 16) -> int:
    """Returns the power of two at or above `size`, from `least` to `maximum`.

    Few sizes mean few compiled programs.
    """
    return min(max(least, 1 << (size - 1).bit_length()), maximum)
