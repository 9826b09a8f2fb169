"""Completions and checks that the tests of several rewards share."""

import random
import time

from grpo_jax.rewards.base import Completion

HUGE = 100_000  # characters


def completion(
    text: str = "",
    *,
    tokens: int = 1,
    group: int = 0,
    reference: str = "",
    limit: int = 100,
):
    return Completion("q", text, reference, tokens, True, group, {}, limit)


def given(values):
    """An accuracy reward that returns these values."""

    def accuracy(completions):
        assert len(completions) == len(values)
        return [None if value is None else float(value) for value in values]

    return accuracy


def texts(*pieces: str) -> list[str]:
    """Empty and huge texts of `pieces`, and noise of all of Unicode, from a seed."""
    rng = random.Random(0)
    found = [""]
    for piece in pieces:
        found += [piece, piece * (HUGE // len(piece))]
    for size in (1, 10, 1000, HUGE):
        found.append("".join(chr(rng.randrange(0x110000)) for _ in range(size)))
        found.append("".join(rng.choice(pieces) for _ in range(size // 10)))
    return found


def check_bounds(reward, low: float, high: float, *pieces: str):
    """Every text has its value, within bounds and soon."""
    for text in texts(*pieces):
        start = time.process_time()
        (value,) = reward([completion(text)])
        assert low <= value <= high, text[:100]
        assert time.process_time() - start < 1.0, text[:100]
