"""What two evaluations of the same problems say about each other.

Problems differ far more from each other than two policies do on one of them, so the
difference is taken problem by problem, and its uncertainty is that of a mean of
differences.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_RESAMPLES = 10_000
# All sign patterns of so many differences are looked at; of more, a sample.
_MOST_ENUMERATED = 14
# The chance to see a difference that is there, for which problems are counted.
_POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean over problems of b - a.

    Attributes:
      mean: of the differences.
      low: lower bound of its bootstrap interval.
      high: upper bound of it.
      standard_error: of the mean; NaN of fewer than two problems.
      p_value: of the sign-flip test.
      problems_needed: to see a difference of this size, in 80 % of the cases, at
        this confidence; 0 if there is none.
      smallest_seen: the difference that this many problems would show in 80 % of the
        cases.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    p_value: float
    problems_needed: int
    smallest_seen: float


def difference(
    a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"], confidence: float
) -> Difference:
    """Compares two estimates of each of the same problems.

    Where no problem differs, every resample is alike and says nothing of others: the
    interval is then as wide as the share of problems that could still differ, by
    Clopper and Pearson.

    Args:
      a: one estimate a problem.
      b: the same of the other policy.
      confidence: of the interval, such as 0.95.

    Raises:
      ValueError: there is no problem.
    """
    if len(a) == 0 or len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} problems cannot be paired")
    change = b - a
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(change), (_RESAMPLES, len(change)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(change[picks].mean(axis=1), [tail, 1 - tail])
    if not change.any():
        high = 1 - tail ** (1 / len(change))
        low = -high
    mean = float(change.mean())
    deviation = float(change.std(ddof=1)) if len(change) > 1 else math.nan
    error = deviation / math.sqrt(len(change))
    # The distance between chance and effect at which a test of this size has its power.
    normal = statistics.NormalDist()
    distance = normal.inv_cdf(1 - tail) + normal.inv_cdf(_POWER)
    needed = 0
    if mean and not math.isnan(deviation):
        needed = max(2, math.ceil((distance * deviation / mean) ** 2))
    return Difference(
        mean=mean,
        low=float(low),
        high=float(high),
        standard_error=error,
        p_value=sign_flip_test(change),
        problems_needed=needed,
        smallest_seen=distance * error,
    )


def sign_flip_test(differences: Float[np.ndarray, " N"]) -> float:
    """Returns how likely a mean as far from 0 is, if policies could be exchanged.

    Under the hypothesis that both policies do equally well on every problem, the sign
    of each difference is a fair coin. Up to 14 differences other than 0 every pattern
    of signs is counted; of more, 20,000 patterns and the one that was seen. Two-sided.
    """
    sizes = np.abs(differences[differences != 0])
    if len(sizes) == 0:
        return 1.0
    seen = abs(float(differences.sum())) - 1e-9 * float(sizes.sum())
    if len(sizes) <= _MOST_ENUMERATED:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(sizes))))
        return float((np.abs(signs @ sizes) >= seen).mean())
    rng, hits, patterns, step = np.random.default_rng(0), 0, 20_000, 1000
    for _ in range(0, patterns, step):
        signs = rng.choice(np.array([-1.0, 1.0]), (step, len(sizes)))
        hits += int((np.abs(signs @ sizes) >= seen).sum())
    return (1 + hits) / (1 + patterns)


def mcnemar_test(a_only: int, b_only: int) -> float:
    """Returns McNemar's exact p-value of one sample a problem, two-sided.

    Twice the chance of at most min(a_only, b_only) heads in a_only + b_only throws.

    Args:
      a_only: problems that only the first policy solved.
      b_only: problems that only the second solved.
    """
    throws = a_only + b_only
    tail = sum(math.comb(throws, i) for i in range(min(a_only, b_only) + 1))
    return min(1.0, 2 * tail / 2**throws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for looking at several comparisons at once.

    The smallest is multiplied by their number, the next by one less, and so on; none is
    below one before it, and none above 1.

    Source: Holm, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, most = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = most
    return adjusted
