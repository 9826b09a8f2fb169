"""The accuracy reward: the answers of a batch, checked in the verifier pool."""

from collections.abc import Sequence

from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion, RewardFunction, once
from grpo_jax.rewards.pool import VerifierPool


def accuracy(pool: VerifierPool) -> RewardFunction:
    """Returns the reward that is 1 where a completion states its reference, else 0.

    None where the reference cannot be parsed, or where the check failed, was killed or
    ran out of time: that says nothing about the completion. `pool.take_counts()` tells
    how many of each there were. Several rewards of one batch check it once.
    """

    @once
    def reward(completions: Sequence[Completion]) -> list[float | None]:
        checks = [
            (extraction.prefilled(each.prompt, each.text), each.reference)
            for each in completions
        ]
        # By name: sympy is imported by the workers only.
        outcomes = pool.map("grpo_jax.rewards.math:verify_math", checks)
        # Only a check that ended well has a value.
        return [None if each.value is None else float(each.value) for each in outcomes]

    return reward
