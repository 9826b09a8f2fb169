"""What rows say, on the host: tokens, who wrote them, and where each row stands."""

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt32

from grpo_jax.records import Origin, Trajectories


class Status(enum.IntEnum):
    """Where a row is in its life."""

    QUEUED = 0  # waits for a place
    LIVE = 1  # is being continued
    SUSPENDED = 2  # has met a stop string, or was told to wait
    DONE = 3


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion to be made.

    Attributes:
      prompt: token ids.
      prompt_id: identity of the prompt within its dataset.
      sample: index of this completion among those of its prompt.
      prefix: token ids the completion must start with.
      prefix_origin: who wrote the prefix.
      max_tokens: longest completion; 0 is the setup's.
      expected_tokens: a guess at its length; the longest are begun first. 0 is none.
    """

    prompt: Sequence[int]
    prompt_id: int
    sample: int
    prefix: Sequence[int] = ()
    prefix_origin: Origin = Origin.GUIDANCE
    max_tokens: int = 0
    expected_tokens: int = 0


@dataclasses.dataclass
class Texts:
    """N rows of T tokens, one array a fact; a row's number is its place in all of them.

    Attributes:
      tokens: token ids.
      origins: `Origin` codes, PAD past the end.
      behavior_log_probs: of sampled tokens, else 0.
      kept_log_mass: of sampled tokens, else 0.
      prompt_lengths: tokens of the prompt.
      lengths: tokens in all.
      limits: a row is done when it reaches this length.
      cached: tokens the cache has seen; 0 without a place.
      status: `Status` codes.
      finished: ended by an end-of-sequence token, or by `Session.finish`.
      stops: index of the stop string a suspended row met; -1 is none.
      stop_states: where a row stands in the search for stop strings.
      owners: which prompt a row has, by content.
      parents: the row it was cloned from; -1 is none.
      keys: data of the row's key.
    """

    tokens: Int[np.ndarray, "N T"]
    origins: UInt8[np.ndarray, "N T"]
    behavior_log_probs: Float[np.ndarray, "N T"]
    kept_log_mass: Float[np.ndarray, "N T"]
    prompt_lengths: Int[np.ndarray, " N"]
    lengths: Int[np.ndarray, " N"]
    limits: Int[np.ndarray, " N"]
    cached: Int[np.ndarray, " N"]
    status: Int[np.ndarray, " N"]
    finished: Bool[np.ndarray, " N"]
    stops: Int[np.ndarray, " N"]
    stop_states: Int[np.ndarray, " N"]
    owners: Int[np.ndarray, " N"]
    parents: Int[np.ndarray, " N"]
    keys: UInt32[np.ndarray, "N k"]

    @classmethod
    def empty(cls, rows: int, columns: int, key_words: int) -> "Texts":
        """Returns queued rows that say nothing yet."""
        wide = (rows, columns)
        return cls(
            tokens=np.zeros(wide, np.int32),
            origins=np.zeros(wide, np.uint8),
            behavior_log_probs=np.zeros(wide, np.float32),
            kept_log_mass=np.zeros(wide, np.float32),
            prompt_lengths=np.zeros(rows, np.int32),
            lengths=np.zeros(rows, np.int32),
            limits=np.zeros(rows, np.int32),
            cached=np.zeros(rows, np.int32),
            status=np.full(rows, Status.QUEUED, np.int32),
            finished=np.zeros(rows, bool),
            stops=np.full(rows, -1, np.int32),
            stop_states=np.zeros(rows, np.int32),
            owners=np.zeros(rows, np.int32),
            parents=np.full(rows, -1, np.int32),
            keys=np.zeros((rows, key_words), np.uint32),
        )

    def __len__(self) -> int:
        """Returns how many rows there are."""
        return len(self.lengths)

    def add(self, count: int) -> np.ndarray:
        """Adds empty, queued rows; returns their numbers."""
        first = len(self)
        new = Texts.empty(count, self.tokens.shape[1], self.keys.shape[1])
        for field in dataclasses.fields(self):
            pair = getattr(self, field.name), getattr(new, field.name)
            setattr(self, field.name, np.concatenate(pair))
        return np.arange(first, first + count)

    def append(self, row: int, tokens: Sequence[int], origin: Origin) -> None:
        """Adds given tokens to a row, as many as its limit leaves room for."""
        start = self.lengths[row]
        end = min(start + len(tokens), self.limits[row])
        self.tokens[row, start:end] = list(tokens)[: end - start]
        self.origins[row, start:end] = origin
        self.lengths[row] = end

    def truncate(self, row: int, length: int) -> None:
        """Forgets what a row says past `length` tokens."""
        self.tokens[row, length:] = 0
        self.origins[row, length:] = Origin.PAD
        self.behavior_log_probs[row, length:] = 0
        self.kept_log_mass[row, length:] = 0
        self.lengths[row] = length
        self.cached[row] = min(self.cached[row], length - 1)

    def record(
        self,
        rows: np.ndarray,
        counts: np.ndarray,
        tokens: np.ndarray,
        log_probs: np.ndarray,
        log_mass: np.ndarray,
    ) -> None:
        """Adds the first `counts` [R] of the sampled tokens [R, Q] to rows [R]."""
        offsets = np.arange(tokens.shape[1])[None]
        drawn = offsets < counts[:, None]
        columns = (self.lengths[rows][:, None] + offsets)[drawn]
        at = np.broadcast_to(rows[:, None], drawn.shape)[drawn]
        self.tokens[at, columns] = tokens[drawn]
        self.origins[at, columns] = Origin.SAMPLED
        self.behavior_log_probs[at, columns] = log_probs[drawn]
        self.kept_log_mass[at, columns] = log_mass[drawn]
        self.lengths[rows] += counts
        self.cached[rows] = self.lengths[rows] - 1

    def trajectories(self, rows: Sequence[int] | np.ndarray) -> Trajectories:
        """Returns what the given rows say, in that order."""
        at = np.asarray(rows, np.int64)
        names = (field.name for field in dataclasses.fields(Trajectories))
        return Trajectories(**{name: getattr(self, name)[at] for name in names})
