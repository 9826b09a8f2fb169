"""What a reward sees and what it returns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Probe:
    """What an agent would have answered after an observation, had it been made to.

    Attributes:
      answer: "" if none came to an end.
      confidence: exp of the mean log-prob of its tokens; 0 without one.
      lowest: the probability of the least likely of them.
      tokens: that were written to find out, and thrown away.
    """

    answer: str
    confidence: float
    lowest: float
    tokens: int


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a search agent wrote between two observations, and what it was given.

    A turn asks a query, or tries to and is malformed, or does neither: then it states
    an answer, or was cut. What was retrieved is recorded here by whoever retrieved it
    and never read from text, which a policy could forge.

    Attributes:
      text: what the policy wrote, its query included and no observation.
      query: what it asked; "" where it asked nothing that could be read.
      document_ids: of the documents it was shown for the query, best first.
      malformed: it tried to ask, and the query could not be read.
      failed: the retriever failed, which is not the policy's fault.
      probe: of what it would have answered after the observation; None where it was
        not asked.
    """

    text: str
    query: str = ""
    document_ids: tuple[str, ...] = ()
    malformed: bool = False
    failed: bool = False
    probe: Probe | None = None

    def __post_init__(self):
        if self.query and self.malformed:
            raise ValueError(f"a malformed turn has no query: {self!r:.200}")
        if not self.query and (self.document_ids or self.failed):
            raise ValueError(f"documents and failures need a query: {self!r:.200}")
        if self.failed and self.document_ids:
            raise ValueError(f"a failed retrieval has no documents: {self!r:.200}")


def turns_to_row(turns: Sequence[Turn]) -> dict[str, Any]:
    """Returns the field of a JSON row that holds turns; none where there are none."""
    rows = [dataclasses.asdict(turn) for turn in turns]
    for row in rows:
        if not row["probe"]:
            del row["probe"]
    return {"turns": rows} if rows else {}


def turns_of_row(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Returns the turns that `turns_to_row` put into a row."""
    return tuple(map(_turn_of, row.get("turns", ())))


def _turn_of(fields: Mapping[str, Any]) -> Turn:
    probe = Probe(**fields["probe"]) if "probe" in fields else None
    ids = tuple(fields["document_ids"])
    return Turn(**{**fields, "document_ids": ids, "probe": probe})


@dataclasses.dataclass(frozen=True)
class Completion:
    """One finished completion, as a reward function sees it.

    Attributes:
      prompt: the prompt's text, as the policy read it.
      text: the completion's text, without special tokens.
      reference: what the task's reference column held; "" if it has none.
      num_tokens: tokens of the completion, the end-of-sequence token included.
      finished: False where the token limit cut it.
      group: index of the prompt within the batch; rows of one group share it.
      columns: every column of the dataset row, for rewards that need more.
      max_tokens: the limit that it was written under; 0 is none.
      turns: what an episode recorded, in order; () where there was none. All but the
        last were followed by an observation, which is in `text` and not in a turn.
      sampled_tokens: of `num_tokens`, those that the policy wrote, which guidance and
        observations are not; 0 where that is not known.
    """

    prompt: str
    text: str
    reference: str
    num_tokens: int
    finished: bool
    group: int
    columns: Mapping[str, Any]
    max_tokens: int = 0
    turns: tuple[Turn, ...] = ()
    sampled_tokens: int = 0

    @property
    def failed(self) -> bool:
        """Whether a retrieval failed: then no reward says anything of the policy."""
        return any(turn.failed for turn in self.turns)


# A reward scores a whole batch: one value a completion, None where it does not apply
# (an unparsable reference, a check that was killed). None is left out of the sum.
RewardFunction = Callable[[Sequence[Completion]], Sequence[float | None]]


def one_by_one(value: Callable[[Completion], float | None]) -> RewardFunction:
    """Returns the reward of one completion at a time; None where a retrieval failed."""

    def reward(completions: Sequence[Completion]) -> list[float | None]:
        return [None if row.failed else value(row) for row in completions]

    return reward


def once(reward: RewardFunction) -> RewardFunction:
    """Returns `reward` with the values of its last batch kept.

    For a reward that is slow and that others are made of: however many of them look at
    a batch, it is computed once.
    """
    last: tuple[list[Completion], list[float | None]] = ([], [])

    @functools.wraps(reward)
    def kept(completions: Sequence[Completion]) -> list[float | None]:
        nonlocal last
        # The same objects, not equal ones: columns may hold what does not compare.
        if list(map(id, completions)) != list(map(id, last[0])):
            last = (list(completions), list(reward(completions)))
        return list(last[1])

    return kept
