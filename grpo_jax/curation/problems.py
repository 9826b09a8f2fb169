"""A problem on its way into a training set, and the verdict of a stage on it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Problem:
    """A row of the input.

    Attributes:
      where: the file and the row in it, from 1.
      source: label of the input that it came with.
      question: what is asked.
      answer: the reference.
      solution: worked; "" where there is none.
      difficulty: label.
    """

    where: str
    source: str
    question: str = ""
    answer: str = ""
    solution: str = ""
    difficulty: str = ""


@dataclasses.dataclass(frozen=True)
class Drop:
    """Why a problem is left out.

    Attributes:
      reason: one of a few, to count by.
      evidence: what was found in this row; "" where the reason says it all.
      collides_with: where the other row is; "" where there is none.
    """

    reason: str
    evidence: str = ""
    collides_with: str = ""


# Of one stage on one problem; None keeps it.
Verdict = Drop | None
