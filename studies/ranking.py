"""How a reward ranks the completions that it compares: pairs of one prompt."""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence

from grpo_jax.rewards.base import Completion, RewardFunction


@dataclasses.dataclass
class Counts:
    """Pairs of completions of one prompt, and which of them got more.

    Attributes:
      mixed: pairs of a right and a wrong one.
      wrong_above_right: those where the wrong one got more.
      right: pairs of right ones that differ in length.
      longer_above_of_right: those where the longer one got more.
      wrong: pairs of wrong ones that differ in length.
      longer_above_of_wrong: those where the longer one got more.
    """

    mixed: int = 0
    wrong_above_right: int = 0
    right: int = 0
    longer_above_of_right: int = 0
    wrong: int = 0
    longer_above_of_wrong: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Counts(*(a + b for a, b in pairs))


@dataclasses.dataclass(frozen=True)
class _Scored:
    """A completion, as far as it is ranked."""

    group: int
    accuracy: float
    num_tokens: int
    value: float


def count(
    completions: Sequence[Completion],
    accuracy: Sequence[float | None],
    reward: RewardFunction,
) -> Counts:
    """Returns how a reward ranks pairs within groups.

    Args:
      completions: of several groups.
      accuracy: 1 where one is right; those without a value are left out.
      reward: what ranks them.
    """
    counts = Counts()
    rows = zip(completions, accuracy, reward(completions), strict=True)
    scored = [
        _Scored(each.group, right, each.num_tokens, value)
        for each, right, value in rows
        if right is not None and value is not None
    ]
    for _, group in itertools.groupby(scored, key=lambda row: row.group):
        for pair in itertools.combinations(group, 2):
            # The second is right, or the longer one.
            low, high = sorted(pair, key=lambda row: (row.accuracy, row.num_tokens))
            if low.accuracy != high.accuracy:
                counts.mixed += 1
                counts.wrong_above_right += low.value > high.value
            elif low.num_tokens == high.num_tokens:
                continue
            elif low.accuracy == 1.0:
                counts.right += 1
                counts.longer_above_of_right += high.value > low.value
            else:
                counts.wrong += 1
                counts.longer_above_of_wrong += high.value > low.value
    return counts


def read(path: pathlib.Path) -> tuple[list[Completion], list[float | None]]:
    """Returns the completions of an evaluation/NAME.jsonl, and their accuracy."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    groups: dict[str, int] = {}
    completions = [
        Completion(
            prompt=row["prompt"],
            text=row["completion"],
            reference=row["reference"],
            num_tokens=row["completion_tokens"],
            finished=row["finished"],
            group=groups.setdefault(row["prompt"], len(groups)),
            columns={},
        )
        for row in rows
    ]
    return completions, [row["accuracy"] for row in rows]
