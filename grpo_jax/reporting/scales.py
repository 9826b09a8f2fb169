"""Numbers of a chart: smoothing, thinning, ranges, ticks and how they are written."""

import itertools
import math
from collections.abc import Sequence

from grpo_jax.reporting.workdir import Number, Point

# A line is drawn from at most this many points, about one a pixel.
_MAX_POINTS = 360


def smoothed(values: Sequence[Number]) -> list[Number]:
    """Returns a centred moving average, twice over about a twenty-fifth of the length.

    The window narrows towards both ends, so that the first and last values stay near
    the data; fewer than ten values are returned as they are.
    """
    out = list(values)
    radius = max(1, len(out) // 50)
    # A constant stays exact: sums of floats would make a staircase of it.
    varies = len(out) >= 10 and min(out) != max(out)
    for _ in range(2 if varies else 0):
        sums = [0.0, *itertools.accumulate(out)]
        for i in range(len(out)):
            low, high = max(0, i - radius), min(len(out), i + radius + 1)
            out[i] = (sums[high] - sums[low]) / (high - low)
    return out


def nice_ticks(low: Number, high: Number, count: int = 5) -> list[Number]:
    """Returns about `count` round numbers within [low, high], low < high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def format_number(value: Number, percent: bool = False) -> str:
    """Returns a value in about three digits: 0.0312, 1.2e-6, 48.3, 12.4k, 73.0%."""
    if percent:
        return f"{100 * value:.1f}%"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e9:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for bound, suffix in ((1e6, "M"), (1e4, "k")):
        if size >= bound:
            return f"{value / (1e6 if suffix == 'M' else 1e3):.3g}{suffix}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def thinned(values: Sequence[Number]) -> list[int]:
    """Returns indices that keep the lowest and highest value of every bucket."""
    if len(values) <= _MAX_POINTS:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    buckets = _MAX_POINTS // 2
    for bucket in range(buckets):
        part = range(
            bucket * len(values) // buckets, (bucket + 1) * len(values) // buckets
        )
        kept |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(kept)


def span(values: Sequence[Number]) -> Point:
    """Returns the range of `values`, widened if it is a point."""
    low, high = min(values), max(values)
    is_point = high - low <= 1e-6 * max(abs(low), abs(high))
    pad = (abs(low) * 0.1 or 1.0) if is_point else 0.0
    return low - pad, high + pad
