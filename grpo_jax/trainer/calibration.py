"""How far a confidence says what is right: its calibration and its ranking.

Each function takes one confidence from 0 to 1 an answer, and whether the answer is
right: above 0.5 is, NaN is not known, and that answer is left out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax.trainer import statistics


class Bin(NamedTuple):
    """Answers of about the same confidence.

    Attributes:
      count: of them, at least one.
      confidence: their mean.
      accuracy: the share that is right.
    """

    count: int
    confidence: float
    accuracy: float


def expected_calibration_error(
    confidence: Float[np.ndarray, " n"],
    right: Float[np.ndarray, " n"],
    *,
    bins: int = 10,
    adaptive: bool = False,
) -> float:
    """Returns the ECE: how far confidence and accuracy are apart, bin by bin.

        sum over bins b of |b| / n * |accuracy(b) - confidence(b)|

    It depends on the bins: few of them hide errors of both signs, many are noise.

    Args:
      confidence: of each answer.
      right: whether it is right.
      bins: how many; those without an answer count nothing.
      adaptive: bins of about equally many answers, instead of equal width.

    Returns:
      From 0 to 1; NaN where no answer is known to be right or wrong.

    Raises:
      ValueError: a confidence outside 0 to 1, or no bin.

    Source: arXiv 1706.04599, section 2 (equal widths); arXiv 1508.05154 (adaptive).
    """
    table = reliability(confidence, right, bins=bins, adaptive=adaptive)
    if not table:
        return float("nan")
    counts, confidences, accuracies = map(np.array, zip(*table, strict=True))
    gaps = np.abs(accuracies - confidences)
    return float((counts * gaps).sum() / counts.sum())


def reliability(
    confidence: Float[np.ndarray, " n"],
    right: Float[np.ndarray, " n"],
    *,
    bins: int = 10,
    adaptive: bool = False,
) -> list[Bin]:
    """Returns the bins that hold an answer, the least confident ones first.

    Args and errors as `expected_calibration_error`. Bin m of M holds confidences above
    (m - 1) / M up to m / M, the first one 0 too. Adaptive bins are cut by rank; equal
    confidences are never parted, so that the order of answers changes nothing.
    """
    confidence, correct = _checked(confidence, right)
    if bins < 1:
        raise ValueError(f"bins is {bins}: use 1 or more")
    which = _by_rank(confidence, bins) if adaptive else _by_width(confidence, bins)
    return [
        Bin(
            int(inside.sum()),
            float(confidence[inside].mean()),
            float(correct[inside].mean()),
        )
        for inside in (which == each for each in range(bins))
        if inside.any()
    ]


def auroc(confidence: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"]) -> float:
    """Returns how often a right answer has a higher confidence than a wrong one.

    Over all pairs of a right and a wrong answer; equal confidences count a half. 0.5
    is what chance gives. It is the area under the ROC curve.

    Returns:
      From 0 to 1; NaN where no answer is right, or none is wrong.

    Raises:
      ValueError: a confidence outside 0 to 1.
    """
    confidence, correct = _checked(confidence, right)
    rights, wrongs = int(correct.sum()), int((~correct).sum())
    if not rights or not wrongs:
        return float("nan")
    # Mann and Whitney's U, from the ranks of the right answers.
    above = statistics.mean_ranks(confidence)[correct].sum() - rights * (rights + 1) / 2
    return float(above / (rights * wrongs))


def _checked(
    confidence: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Returns what is known, as confidences and whether answers are right."""
    known = ~np.isnan(right)
    confidence = confidence[known]
    outside = ~((confidence >= 0) & (confidence <= 1))
    if outside.any():
        raise ValueError(
            f"a confidence is {confidence[outside][0]}: it must be from 0 to 1, such "
            "as exp(mean log-prob)"
        )
    return confidence, right[known] > 0.5


def _by_width(confidence: Float[np.ndarray, " n"], bins: int) -> Int[np.ndarray, " n"]:
    # A product with `bins` would move 0.7 across its edge.
    return np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")


def _by_rank(confidence: Float[np.ndarray, " n"], bins: int) -> Int[np.ndarray, " n"]:
    if not len(confidence):
        return np.zeros(0, int)
    share = (statistics.mean_ranks(confidence) - 0.5) / len(confidence)
    return np.floor(share * bins).astype(int)
