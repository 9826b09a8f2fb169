"""The unit of data: one question and what is known about it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Example:
    """One question and what is known about it.

    Attributes:
      id: identity within its split, 0 <= id < 2**31; sampling noise depends on it.
      question: the question, before any template.
      reference: what the rewards compare a completion with.
      solution: worked reasoning, written as the policy should write it; "" if none.
      tier: difficulty, for curves by tier.
      columns: every column of the dataset row, for rewards that need more.
    """

    id: int
    question: str
    reference: str
    solution: str = ""
    tier: int = 0
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Segment(NamedTuple):
    """A piece of an episode's text, and whether it is an observation."""

    text: str
    observed: bool


# A worked solution to show: text, or the segments of an episode, of which observations
# are shown and not learned.
Demonstration = str | Sequence[Segment]
