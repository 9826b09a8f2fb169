"""The reward for reasoning that is written in steps."""

import re
from collections.abc import Sequence

from grpo_jax.rewards.base import Completion

_ENOUGH_STEPS = 3
# A number counts at the start of the text only, a bullet everywhere but there.
_STEP = re.compile(r"Step \d+:|\A\d+\.|\n[-*]|(?:First|Second|Next|Finally),")


def reasoning_steps(completions: Sequence[Completion]) -> list[float]:
    """Returns a third for each sign of a step, at most 1.

    A sign is "Step 2:", a number that begins the text, a bullet that begins a later
    line, or one of "First,", "Second,", "Next," and "Finally,". Three hyphens earn as
    much as three thoughts: give it little weight, or none.

    Source: huggingface/open-r1.
    """
    counts = [len(_STEP.findall(each.text)) for each in completions]
    return [min(1.0, count / _ENOUGH_STEPS) for count in counts]
