"""What a reward sees and what it returns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any


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
    """

    prompt: str
    text: str
    reference: str
    num_tokens: int
    finished: bool
    group: int
    columns: Mapping[str, Any]
    max_tokens: int = 0


# A reward scores a whole batch: one value a completion, None where it does not apply
# (an unparsable reference, a check that was killed). None is left out of the sum.
RewardFunction = Callable[[Sequence[Completion]], Sequence[float | None]]


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
