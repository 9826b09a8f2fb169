"""Rollouts as a conversation between the host and the sampling loop.

    session.submit(requests)          rows join the queue
    while session.active:
        for row in session.advance():     one chunk; rows that stopped in it
            session.append(row, tokens)       an observation, a forced closing tag, ...
            session.resume(row)               or session.finish(row)
    session.clone(row, length)        another row that starts from part of this one
    session.trajectories(rows)

A row that meets a stop string waits, its keys and values kept, while the others go on.
Before every chunk the session frees the places of rows that are done, halves the grid
when the rest fits into half of it, gives free places to rows that wait, and shows the
model the tokens that were given to rows. None of this changes what is sampled.
"""

import collections
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from grpo_jax.policy import transformer
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rollout import engine, placement
from grpo_jax.rollout.decoder import Decoder
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.setup import RolloutStats, Setup
from grpo_jax.rollout.stops import StopTable
from grpo_jax.rollout.texts import Request, Status, Texts


def complete(
    setup: Setup,
    view: transformer.Params,
    requests: Sequence[Request],
    *,
    sampling: Sampling,
    key: Key[Array, ""],
    step: int = 0,
    stops: StopTable | None = None,
    on_chunk: "Callable[[Session], None] | None" = None,
) -> tuple[Trajectories, RolloutStats]:
    """Returns finished rows, in the order of the requests, and what was done.

    A row that meets a stop string is finished there.

    Args:
      setup: the model's sampler.
      view: weights as `transformer.rollout_view` lays them out.
      requests: what to complete.
      sampling: how tokens are drawn.
      key: noise of this kind of rollout; with `step` and a request's identity it
        decides every draw.
      step: training step.
      stops: strings that end a completion.
      on_chunk: called after every chunk, for streaming.

    Raises:
      ValueError: a prompt or prefix that does not fit, or an empty prompt.
    """
    session = Session(setup, view, sampling=sampling, key=key, step=step, stops=stops)
    rows = session.submit(requests)
    session.run(on_chunk)
    return session.trajectories(rows), session.stats


class Peek(NamedTuple):
    """What a row would write; log-probs are at a temperature of 1."""

    tokens: list[int]
    log_probs: Float[np.ndarray, " n"]


class Session:
    """Rows being written, the cache they share, and the grid they lie in.

    Attributes:
      texts: what every row says; a row's number is what `submit` and `clone` returned.
    """

    def __init__(
        self,
        setup: Setup,
        view: transformer.Params,
        *,
        sampling: Sampling,
        key: Key[Array, ""],
        step: int = 0,
        stops: StopTable | None = None,
        hold: bool = False,
    ):
        """Starts without rows.

        Args:
          setup: the model's sampler.
          view: weights as `transformer.rollout_view` lays them out.
          sampling: how tokens are drawn.
          key: noise of this kind of rollout; with `step` and a request's identity it
            decides every draw.
          step: training step.
          stops: strings at which a row is suspended.
          hold: rows that are done keep their places until `release`, so that clones
            of them need no prefill.
        """
        self._decoder = Decoder(setup, view, sampling, stops)
        self._key, self._step, self._hold = key, jnp.int32(step), hold
        self._queue: placement.Queue = collections.deque()
        self._prompts: dict[tuple[int, ...], int] = {}
        self.texts = Texts.empty(0, setup.columns, jax.random.key_data(key).size)

    @property
    def stats(self) -> RolloutStats:
        """What was done so far."""
        return self._decoder.stats

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values that are kept."""
        return self._decoder.cache_bytes

    @property
    def active(self) -> bool:
        """Whether any row is live or waits for a place."""
        waiting = (Status.LIVE, Status.QUEUED)
        return bool(np.isin(self.texts.status, waiting).any())

    def submit(self, requests: Sequence[Request]) -> list[int]:
        """Queues completions; returns the numbers of their rows.

        Raises:
          ValueError: a prompt or a prefix that is too long, or an empty prompt.
        """
        for request in requests:
            self._check(request)
        rows = self.texts.add(len(requests)).tolist()
        texts = self.texts
        self._set_keys(rows, [(r.prompt_id, r.sample) for r in requests])
        blocks: dict[int, list[int]] = {}
        expected: dict[int, int] = collections.defaultdict(int)
        for row, request in zip(rows, requests, strict=True):
            owner = self._prompts.setdefault(tuple(request.prompt), len(self._prompts))
            texts.owners[row] = owner
            texts.prompt_lengths[row] = len(request.prompt)
            texts.limits[row] = len(request.prompt) + self._budget(request)
            texts.append(row, request.prompt, Origin.PROMPT)
            self.append(row, request.prefix, request.prefix_origin)
            left = int(texts.limits[row] - texts.lengths[row])
            guess = min(request.expected_tokens or left, left)
            expected[owner] = max(expected[owner], guess)
            if left:
                blocks.setdefault(owner, []).append(row)
            else:
                texts.status[row] = Status.DONE
        longest_first = sorted(blocks, key=lambda owner: -expected[owner])
        self._queue.extend(blocks[owner] for owner in longest_first)
        return rows

    def append(
        self, row: int, tokens: Sequence[int], origin: Origin = Origin.OBSERVATION
    ) -> None:
        """Adds given tokens to a row that is not live, as many as its limit allows.

        The search for stop strings begins anew behind them.
        """
        assert self.texts.status[row] != Status.LIVE, f"row {row} is live"
        self.texts.append(row, tokens, origin)
        self.texts.stop_states[row] = 0

    def resume(self, row: int) -> None:
        """Lets a suspended row go on; one without room for a token is done."""
        texts = self.texts
        assert texts.status[row] == Status.SUSPENDED, f"row {row} is not suspended"
        texts.stops[row], texts.stop_states[row] = -1, 0
        if texts.lengths[row] >= texts.limits[row]:
            texts.status[row] = Status.DONE
        elif self._decoder.has_place(row):
            texts.status[row] = Status.LIVE
        else:
            texts.status[row] = Status.QUEUED
            self._queue.append([row])

    def finish(self, row: int, *, complete: bool = True) -> None:
        """Ends a suspended row; if not complete, it counts as cut by its limit."""
        assert self.texts.status[row] == Status.SUSPENDED, f"row {row} is not suspended"
        self.texts.status[row], self.texts.finished[row] = Status.DONE, complete

    def truncate(self, row: int, length: int) -> None:
        """Takes a row that is not live back to `length` tokens; it is suspended then.

        Raises:
          ValueError: a length below the prompt's or above the row's.
        """
        texts = self.texts
        low, high = int(texts.prompt_lengths[row]), int(texts.lengths[row])
        if not low <= length <= high:
            raise ValueError(
                f"row {row} cannot be cut to {length} tokens: its prompt has {low} and "
                f"it has {high}"
            )
        assert texts.status[row] in (Status.SUSPENDED, Status.DONE), f"row {row}"
        texts.truncate(row, length)
        texts.stops[row], texts.stop_states[row] = -1, 0
        texts.finished[row] = False
        texts.status[row] = Status.SUSPENDED

    def clone(self, row: int, length: int, *, prompt_id: int, sample: int) -> int:
        """Queues a row that starts as the first `length` tokens of another.

        Keys and values are copied if the other still has its place, else computed.

        Args:
          row: any row.
          length: from its prompt's length to its own.
          prompt_id: with `sample`, the identity that decides the new row's noise.
          sample: index of the new row among the completions of its prompt.

        Raises:
          ValueError: a length below the prompt's or above the row's.
        """
        texts = self.texts
        low, high = int(texts.prompt_lengths[row]), int(texts.lengths[row])
        if not low <= length <= high:
            raise ValueError(
                f"row {row} cannot be cloned to {length} tokens: its prompt has {low} "
                f"and it has {high}"
            )
        new = int(texts.add(1)[0])
        texts = self.texts
        for name in ("owners", "prompt_lengths", "limits"):
            getattr(texts, name)[new] = getattr(texts, name)[row]
        for name in ("tokens", "origins", "behavior_log_probs", "kept_log_mass"):
            getattr(texts, name)[new, :length] = getattr(texts, name)[row, :length]
        texts.lengths[new], texts.parents[new] = length, row
        self._set_keys([new], [(prompt_id, sample)])
        if length < texts.limits[new]:
            self._queue.append([new])
        else:
            texts.status[new] = Status.DONE
        return new

    def peek(self, rows: Sequence[int], given: Sequence[int], most: int) -> list[Peek]:
        """Returns what suspended rows would write greedily after some given tokens.

        They are as before then, and all others wait meanwhile.

        Args:
          rows: which; they keep to their limits.
          given: tokens that the program puts in first.
          most: tokens that are written.
        """
        texts = self.texts
        others = np.flatnonzero(texts.status == Status.LIVE)
        texts.status[others] = Status.SUSPENDED
        lengths, limits = texts.lengths[rows], texts.limits[rows]
        texts.limits[rows] = np.minimum(limits, lengths + len(given) + most)
        for row in rows:
            self.append(row, given, Origin.FORCED)
            self.resume(row)
        while (texts.status == Status.LIVE).any():
            self._decoder.catch_up(texts)
            self._decoder.decode(texts, greedy=True)
        seen = []
        for row, length in zip(rows, lengths.tolist(), strict=True):
            new = slice(length + len(given), int(texts.lengths[row]))
            scores = texts.behavior_log_probs[row, new].copy()
            seen.append(Peek(texts.tokens[row, new].tolist(), scores))
            self.truncate(row, length)
        texts.limits[rows] = limits
        texts.status[others] = Status.LIVE
        return seen

    def release(self, row: int) -> None:
        """Gives up the place of a row that is done."""
        assert self.texts.status[row] == Status.DONE, f"row {row} is not done"
        self._decoder.vacate(self.texts, [row])

    def trajectories(self, rows: Sequence[int]) -> Trajectories:
        """Returns what rows say."""
        return self.texts.trajectories(rows)

    def run(self, on_chunk: "Callable[[Session], None] | None" = None) -> None:
        """Decodes until no row waits or lives; a row that meets a stop is finished.

        Args:
          on_chunk: called after every chunk, for streaming.
        """
        while self.active:
            stopped = np.asarray(self.advance(), np.int64)
            for row in stopped[self.texts.status[stopped] == Status.SUSPENDED]:
                self.finish(int(row))
            if on_chunk:
                on_chunk(self)

    def advance(self) -> list[int]:
        """Decodes one chunk; returns the rows that were suspended or done in it."""
        if not self._hold:
            done = np.flatnonzero(self.texts.status == Status.DONE)
            self._decoder.vacate(self.texts, done.tolist())
        self._decoder.arrange(self.texts, self._queue)
        self._decoder.catch_up(self.texts)
        return self._decoder.decode(self.texts)

    def _set_keys(self, rows: list[int], identities: list[tuple[int, int]]) -> None:
        """Gives rows the noise of (prompt id, sample)."""
        prompt_ids, samples = np.asarray(identities, np.int32).reshape(-1, 2).T
        keys = engine.row_keys(self._key, self._step, prompt_ids, samples)
        self.texts.keys[rows] = jax.device_get(keys)

    def _budget(self, request: Request) -> int:
        """Returns the length of the longest completion of a request."""
        longest = self._decoder.setup.max_completion_tokens
        return min(request.max_tokens or longest, longest)

    def _check(self, request: Request) -> None:
        setup, budget = self._decoder.setup, self._budget(request)
        if not 0 < len(request.prompt) <= setup.max_prompt_tokens:
            raise ValueError(
                f"prompt {request.prompt_id} has {len(request.prompt)} tokens: between "
                f"1 and max_prompt_tokens={setup.max_prompt_tokens} fit"
            )
        if len(request.prefix) > budget:
            raise ValueError(
                f"the prefix of prompt {request.prompt_id} has {len(request.prefix)} "
                f"tokens: at most {budget} fit, by the request's max_tokens or by "
                "max_completion_tokens"
            )
