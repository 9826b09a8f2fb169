"""The rewards of programs: how many tests a completion passes, and whether all."""

from collections.abc import Sequence

from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion, RewardFunction, once
from grpo_jax.rewards.code import Limits, fraction_passed
from grpo_jax.rewards.pool import VerifierPool


def passed_fraction(pool: VerifierPool, limits: Limits) -> RewardFunction:
    """Returns the reward that is the fraction of its tests that a completion passes.

    None where the tests are malformed, or where the check failed, was killed or ran out
    of time: that says nothing about the completion. A program that runs out of its own
    time fails a test. Several rewards of one batch run its programs once.
    """

    @once
    def reward(completions: Sequence[Completion]) -> list[float | None]:
        checks = [
            (extraction.prefilled(each.prompt, each.text), each.reference, limits)
            for each in completions
        ]
        return [each.value for each in pool.map(fraction_passed, checks)]

    return reward


def all_passed(fractions: RewardFunction) -> RewardFunction:
    """Returns the reward that is 1 where `fractions` is 1, else 0; None stays None."""

    def reward(completions: Sequence[Completion]) -> list[float | None]:
        return [
            None if value is None else float(value == 1.0)
            for value in fractions(completions)
        ]

    return reward
