"""Estimates of accuracy from several samples a problem, with their uncertainty."""

import math

import numpy as np
from jaxtyping import Float

# Enough resamples that the ends of a 95 % interval move by less than a tenth of a point
# from one set of resamples to another.
_RESAMPLES = 2000


def pass_at_k(values: Float[np.ndarray, "N k"], k: int) -> Float[np.ndarray, " N"]:
    """Estimates, for each problem, the chance that one of k samples is correct.

        1 - C(n - c, k) / C(n, k)    for c correct among n graded samples

    which is unbiased; at k = 1 it is the mean.

    Args:
      values: above 0.5 is correct; NaN was not graded and does not count.
      k: at least 1.

    Returns:
      One estimate a problem; NaN where fewer than k samples were graded.

    Raises:
      ValueError: k samples were never drawn.

    Source: arXiv 2107.03374, section 2.1.
    """
    if not 1 <= k <= values.shape[1]:
        raise ValueError(
            f"pass@{k} needs {k} samples of a problem and there are {values.shape[1]}: "
            "draw more, or ask for a smaller k"
        )
    graded = (~np.isnan(values)).sum(axis=1)
    wrong = graded - (np.nan_to_num(values) > 0.5).sum(axis=1)
    # C(wrong, k) / C(graded, k), factor by factor; a factor of 0 makes it exactly 0.
    missed = np.ones(len(values))
    for i in range(k):
        missed *= np.maximum(wrong - i, 0) / np.maximum(graded - i, 1)
    return np.where(graded >= k, 1 - missed, np.nan)


def mean_of_samples(values: Float[np.ndarray, "N k"]) -> Float[np.ndarray, " N"]:
    """Returns the mean of each problem's samples that are not NaN; NaN of none."""
    known = ~np.isnan(values)
    sums = np.where(known, values, 0).sum(axis=1)
    counts = known.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def mean_with_interval(
    values: Float[np.ndarray, " N"], confidence: float
) -> dict[str, float]:
    """Returns the mean over problems, its bootstrap interval and its standard error.

    For the interval problems are resampled, whole, so that samples of one problem stay
    together. The resamples are the same at every call: equal inputs give equal
    intervals.

    Where all values are 0, or all 1, every resample is alike and says nothing of what
    other problems would give: the interval is then Clopper and Pearson's, of as many
    problems solved never, or always.

    Args:
      values: one estimate a problem, from 0 to 1; NaN is left out.
      confidence: of the interval, such as 0.95.
    """
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return dict.fromkeys(("mean", "low", "high", "standard_error"), math.nan)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(values), (_RESAMPLES, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail])
    unseen = 1 - tail ** (1 / len(values))
    if (values == 0).all():
        high = unseen
    elif (values == 1).all():
        low = 1 - unseen
    return {
        "mean": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "standard_error": standard_error(values),
    }


def standard_error(values: Float[np.ndarray, " N"]) -> float:
    """Returns the standard error of the mean over problems.

        std(values) / sqrt(N)    with N - 1 in the variance

    Problems are the clusters: a value is the mean of a problem's samples, so that many
    samples of few problems do not look like many problems.

    Args:
      values: one estimate a problem, none of them NaN.

    Returns:
      NaN of fewer than two problems.
    """
    if len(values) < 2:
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def binomial_standard_error(accuracy: float, problems: int) -> float:
    """Returns the standard error of one sample a problem, as lighteval reports it.

        sqrt(p (1 - p) / (n - 1))

    which is `standard_error` of values that are 0 or 1.
    """
    return math.sqrt(accuracy * (1 - accuracy) / (problems - 1))


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Returns Spearman's rank correlation; equal values share their mean rank.

    Args:
      a: not all equal.
      b: not all equal.
    """
    return float(np.corrcoef(mean_ranks(a), mean_ranks(b))[0, 1])


def mean_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns ranks from 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
