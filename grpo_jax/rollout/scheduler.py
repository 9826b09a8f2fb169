"""The host's side of the sampling loop: padding, waves, chunks and cache growth."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from grpo_jax import choices
from grpo_jax.policy import cache, sharding, transformer
from grpo_jax.policy.presets import Architecture
from grpo_jax.records import Origin, PromptBatch, Trajectories
from grpo_jax.rollout import engine
from grpo_jax.rollout.engine import Rows, Sampling

_grow = jax.jit(cache.grow, static_argnames="slots")


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion to be made.

    Attributes:
      prompt: token ids.
      prompt_id: identity of the prompt within its dataset.
      sample: index of this completion among those of its prompt.
      prefix: token ids the completion must start with.
      prefix_origin: who wrote the prefix.
    """

    prompt: Sequence[int]
    prompt_id: int
    sample: int
    prefix: Sequence[int] = ()
    prefix_origin: Origin = Origin.GUIDANCE


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """Completes any number of requests in waves of one fixed shape.

    Attributes:
      arch: the shape of the model.
      mesh: rows are split over its devices.
      dtype: of the weights and the cache.
      eos_ids: tokens that end a completion.
      max_prompt_tokens: longest prompt.
      max_completion_tokens: longest completion.
      chunk_steps: decode steps between two looks at which rows are done.
      wave_rows: rows decoded at once; a multiple of the devices that split rows.
    """

    arch: Architecture
    mesh: jax.sharding.Mesh
    dtype: choices.Dtype
    eos_ids: tuple[int, ...]
    max_prompt_tokens: int
    max_completion_tokens: int
    chunk_steps: int
    wave_rows: int

    @property
    def columns(self) -> int:
        """Tokens of the longest row."""
        return self.max_prompt_tokens + self.max_completion_tokens

    def complete(
        self,
        view: transformer.Params,
        requests: Sequence[Request],
        *,
        sampling: Sampling,
        key: Key[Array, ""],
        step: int = 0,
        on_chunk: Callable[[Rows], None] | None = None,
    ) -> Trajectories:
        """Returns finished rows, in the order of the requests, as host arrays.

        Args:
          view: weights as `transformer.rollout_view` lays them out.
          requests: what to complete.
          sampling: how tokens are drawn.
          key: noise of this kind of rollout; with `step` and the request's identity it
            decides every draw.
          step: training step.
          on_chunk: called with the rows after every chunk, for streaming.

        Raises:
          ValueError: a prompt longer than `max_prompt_tokens`, or empty.
        """
        waves = []
        for first in range(0, len(requests), self.wave_rows):
            wave = requests[first : first + self.wave_rows]
            batch = sharding.put_rows(self._pad(wave), self.mesh)
            rows = engine.start(batch, key, jnp.int32(step), columns=self.columns)
            rows = self._decode(view, rows, sampling, on_chunk)
            waves.append(_fetch(rows, len(wave)))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *waves)

    def _decode(
        self,
        view: transformer.Params,
        rows: Rows,
        sampling: Sampling,
        on_chunk: Callable[[Rows], None] | None,
    ) -> Rows:
        """Runs chunks until every row is done; the cache grows as rows do."""
        live, longest = _progress(rows)
        width = bucket(longest, self.columns)
        kv = cache.empty(
            self.arch,
            self.wave_rows,
            width,
            self.dtype,
            sharding=sharding.cache_sharding(self.mesh),
        )
        kv = engine.catch_up(view, kv, rows, arch=self.arch, width=width)
        while live:
            slots = bucket(longest + self.chunk_steps, self.columns)
            if slots > kv.num_slots:
                kv = _grow(kv, slots=slots)
            kv, rows = engine.decode_chunk(
                view,
                kv,
                rows,
                arch=self.arch,
                sampling=sampling,
                eos_ids=self.eos_ids,
                steps=self.chunk_steps,
            )
            if on_chunk:
                on_chunk(rows)
            live, longest = _progress(rows)
        return rows

    def _pad(self, wave: Sequence[Request]) -> PromptBatch:
        """Returns a batch of `wave_rows` rows; what is beyond `wave` writes nothing."""
        for request in wave:
            if not 0 < len(request.prompt) <= self.max_prompt_tokens:
                raise ValueError(
                    f"prompt {request.prompt_id} has {len(request.prompt)} tokens: "
                    f"between 1 and max_prompt_tokens={self.max_prompt_tokens} fit"
                )
            if len(request.prefix) > self.max_completion_tokens:
                raise ValueError(
                    f"the prefix of prompt {request.prompt_id} has "
                    f"{len(request.prefix)} tokens, more than "
                    f"max_completion_tokens={self.max_completion_tokens}"
                )
        padding = [wave[-1]] * (self.wave_rows - len(wave))
        filled = [*wave, *padding]
        texts = [[*request.prompt, *request.prefix] for request in filled]
        width = bucket(max(map(len, texts)), self.columns)
        tokens = np.zeros((self.wave_rows, width), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = text
        budgets = np.zeros(self.wave_rows, np.int32)
        budgets[: len(wave)] = self.max_completion_tokens

        def column(values: list[int]) -> Int[np.ndarray, " B"]:
            return np.asarray(values, np.int32)

        return PromptBatch(
            tokens=tokens,
            prompt_lengths=column([len(request.prompt) for request in filled]),
            lengths=column([len(text) for text in texts]),
            prefix_origins=column([r.prefix_origin for r in filled]).astype(np.uint8),
            budgets=budgets,
            prompt_ids=column([request.prompt_id for request in filled]),
            samples=column([request.sample for request in filled]),
        )


def bucket(size: int, maximum: int) -> int:
    """Returns the power of two at or above `size`, at least 16 and at most `maximum`.

    Few sizes mean few compiled programs.
    """
    return min(max(16, 1 << (size - 1).bit_length()), maximum)


@jax.jit
def _live_and_longest(rows: Rows) -> tuple[Array, Array]:
    return (~rows.done).sum(), rows.lengths.max()


def _progress(rows: Rows) -> tuple[int, int]:
    """Returns how many rows are live and the length of the longest row."""
    live, longest = jax.device_get(_live_and_longest(rows))
    return int(live), int(longest)


def _fetch(rows: Rows, count: int) -> Trajectories:
    """Returns the first rows, as host arrays."""
    names = (field.name for field in dataclasses.fields(Trajectories))
    fetched = jax.device_get({name: getattr(rows, name) for name in names})
    return Trajectories(**{name: array[:count] for name, array in fetched.items()})
