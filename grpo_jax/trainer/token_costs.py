"""What right completions cost in tokens, and what shorter limits would have left."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax.trainer import statistics

# Lengths of the frontier: a root of two apart, over a factor of 64.
_LENGTHS = 13


def token_means(
    tokens: Int[np.ndarray, "N k"],
    accuracy: Float[np.ndarray, "N k"],
    finished: Bool[np.ndarray, "N k"],
) -> dict[str, float | None]:
    """Returns mean tokens of all, right, wrong and finished completions.

    Args:
      tokens: of each completion.
      accuracy: above 0.5 is right; NaN was not graded, neither right nor wrong.
      finished: not cut by the token limit.

    Returns:
      The means by kind; None of no completion.
    """
    kinds = {
        "all": np.ones(tokens.shape, bool),
        "right": accuracy > 0.5,
        "wrong": accuracy <= 0.5,
        "finished": finished,
    }
    return {
        name: float(tokens[which].mean()) if which.any() else None
        for name, which in kinds.items()
    }


def accuracy_by_length(
    tokens: Int[np.ndarray, "N k"], accuracy: Float[np.ndarray, "N k"], limit: int
) -> list[dict[str, Any]]:
    """Returns the accuracy if completions were cut after fewer and fewer tokens.

    A completion counts that is right and has at most so many tokens. One that was told
    of the limit might do better.

    Args:
      tokens: of each completion.
      accuracy: above 0.5 is right; NaN was not graded.
      limit: the longest completion that was allowed; the accuracy there is pass@1.
    """
    points = []
    for length in _lengths(limit):
        within = np.where(np.isnan(accuracy), np.nan, accuracy * (tokens <= length))
        solved = statistics.pass_at_k(within, 1)
        mean = float(np.nanmean(solved)) if (~np.isnan(solved)).any() else None
        points.append({"tokens": length, "accuracy": mean})
    return points


def _lengths(limit: int) -> Sequence[int]:
    halves = range(_LENGTHS - 1, -1, -1)
    return sorted({max(1, round(limit * 2 ** (-half / 2))) for half in halves})
