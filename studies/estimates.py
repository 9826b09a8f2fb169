"""Numbers over seeds: their range, and what differs between arms of one seed."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def spread(values: Sequence[float], scale: float = 100) -> str:
    """Returns the mean and the range: 93.1 (91.0 to 94.2), in percent of fractions.

    Args:
      values: fractions, one a seed; with a scale of 1, anything.
      scale: what they are multiplied by.
    """
    mean, low, high = (scale * f(values) for f in (np.mean, np.min, np.max))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def difference(
    values: Sequence[float],
    others: Sequence[float],
    confidence: float = 0.95,
    scale: float = 100,
) -> str:
    """Returns the mean paired difference and its interval, in points: +3.1 ± 2.0.

    The interval is Student's over seeds, which holds what a new base and a new run
    would change; problems are the same for all.

    Args:
      values: fractions, one a seed, of at least two seeds; with a scale of 1, anything.
      others: of the same seeds.
      confidence: of the interval.
      scale: what they are multiplied by.
    """
    differences = scale * (np.asarray(values) - np.asarray(others))
    quantile = stats.t.ppf((1 + confidence) / 2, len(differences) - 1)
    half = quantile * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{differences.mean():+.1f} ± {half:.1f}"
