"""A problem on its way into a training set, and the verdict of a stage on it."""

import dataclasses
from typing import NamedTuple


class Solved(NamedTuple):
    """What became of a policy's samples of a problem.

    Attributes:
      right: those that are right.
      graded: those that could be graded.
      sampled: all of them; 0 where the prompt is too long for the policy.
    """

    right: int
    graded: int
    sampled: int


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
      solved: by a policy; None where none was asked.
    """

    where: str
    source: str
    question: str = ""
    answer: str = ""
    solution: str = ""
    difficulty: str = ""
    solved: Solved | None = None

    @property
    def pass_rate(self) -> float | None:
        """Part of the graded samples that is right; None where there is none."""
        if self.solved is None or not self.solved.graded:
            return None
        return self.solved.right / self.solved.graded


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
