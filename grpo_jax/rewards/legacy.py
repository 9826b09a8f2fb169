"""Rewards of Open-RS as its code computed them, to compare runs with.

They are not what its paper describes, and nothing to build on: docs/rewards.md says
where they differ.
"""

from collections.abc import Sequence

from grpo_jax.rewards.base import Completion, RewardFunction
from grpo_jax.rewards.length import half_cosine


def legacy_open_rs_accuracy(accuracy: RewardFunction) -> RewardFunction:
    """Returns `accuracy` with 1 for everybody where a reference was not readable.

    That is one without LaTeX, "6" too, or one that `accuracy` cannot read. A check
    that failed is 0.
    """

    def reward(completions: Sequence[Completion]) -> list[float]:
        values = _without_failures(completions, accuracy(completions))
        return [
            1.0 if value is None or not _has_latex(each.reference) else value
            for each, value in zip(completions, values, strict=True)
        ]

    return reward


def legacy_open_rs_cosine(
    accuracy: RewardFunction, *, max_characters: int
) -> RewardFunction:
    """Returns the cosine reward over characters, without an end.

    Correct completions get 1 to 0.5, wrong ones 0 to -0.5: the longer, the worse. Past
    `max_characters` the wave rises again. Where `accuracy` cannot read a reference, 1.

    Args:
      accuracy: 1 where a completion is correct.
      max_characters: Open-RS put its limit of tokens here.
    """

    def value(correct: float | None, characters: int) -> float:
        if correct is None:
            return 1.0
        progress = characters / max_characters
        if correct == 1.0:
            return half_cosine(progress, 1.0, 0.5)
        return half_cosine(progress, 0.0, -0.5)

    def reward(completions: Sequence[Completion]) -> list[float]:
        values = _without_failures(completions, accuracy(completions))
        return [
            value(correct, len(each.text))
            for each, correct in zip(completions, values, strict=True)
        ]

    return reward


def _without_failures(
    completions: Sequence[Completion], values: Sequence[float | None]
) -> list[float | None]:
    """Returns 0 for checks that failed; None is left for unreadable references.

    What has no value in a group that has others is a check that failed. Where a group
    has none at all, its reference is taken to be unreadable.
    """
    pairs = list(zip(completions, values, strict=True))
    readable = {each.group for each, value in pairs if value is not None}
    return [
        0.0 if value is None and each.group in readable else value
        for each, value in pairs
    ]


def _has_latex(reference: str) -> bool:
    return "\\" in reference or "$" in reference
