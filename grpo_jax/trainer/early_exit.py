"""Could episodes have ended earlier, and from which confidence on should they?

A probe is what an episode would have answered after a reply (`rollout/probing.py`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from grpo_jax.budget_config import BudgetConfig
from grpo_jax.rewards.answer import exact, golds_of
from grpo_jax.rewards.base import Completion, Probe
from grpo_jax.trainer import calibration

# Thresholds of which the record of an evaluation says what they would have done.
_SHOWN = 20
# Thresholds that are tried.
_TRIED = 500


class Courses(NamedTuple):
    """E episodes with up to P probes, as far as stopping is concerned.

    Attributes:
      confidence: of each probe; 0 where an episode has no further one.
      right: 1 where the answer of a probe is right, else 0; NaN as above.
      calls: until a probe, its own included.
      end_right: the same of the answer that the episode gave, NaN if not known.
      end_calls: of the whole episode.
    """

    confidence: Float[np.ndarray, "E P"]
    right: Float[np.ndarray, "E P"]
    calls: Int[np.ndarray, "E P"]
    end_right: Float[np.ndarray, " E"]
    end_calls: Int[np.ndarray, " E"]


class Point(NamedTuple):
    """What a threshold would have done.

    Attributes:
      confidence: from which on episodes stop; 0: none does.
      accuracy: mean over episodes.
      calls_mean: of an episode.
      exit_fraction: episodes that stop before their end.
    """

    confidence: float
    accuracy: float
    calls_mean: float
    exit_fraction: float


def summary(
    completions: Sequence[Completion],
    accuracy: Float[np.ndarray, " B"],
    config: BudgetConfig,
) -> dict[str, Any]:
    """Returns what an evaluation says of its probes.

    Where episodes did not stop early, also what thresholds would have done, and the
    one that `recommend` finds.

    Args:
      completions: with probes.
      accuracy: of the answers that they gave; NaN was not graded.
      config: the threshold, and the accuracy that may be lost.
    """
    probes = [each for row in completions for each in _probes(row)]
    confidence = np.array([each.confidence for each in probes], float)
    lowest = np.array([each.lowest for each in probes], float)
    courses = courses_of(completions, accuracy)
    right = courses.right[~np.isnan(courses.right)]
    spent = [sum(each.tokens for each in _probes(row)) for row in completions]
    found = {
        "probes": len(probes),
        "probe_tokens_mean": _mean(spent),
        "answered_fraction": _mean([bool(each.answer) for each in probes]),
        "right_fraction": _mean(right),
        "ece": calibration.expected_calibration_error(confidence, right),
        "auroc": calibration.auroc(confidence, right),
        "auroc_of_lowest": calibration.auroc(lowest, right),
        "exit_confidence": config.exit_confidence,
        "exit_fraction": exit_fraction(completions, config.exit_confidence),
        "calls_mean": _mean(courses.end_calls),
    }
    if config.exit_confidence or not np.nansum(courses.end_right):
        return found  # what is never right has nothing to lose
    points = trade_off(courses)
    shown = np.linspace(0, len(points) - 1, min(_SHOWN, len(points))).round()
    return found | {
        "recommended": recommend(points, config.exit_tolerance)._asdict(),
        "trade_off": [points[int(at)]._asdict() for at in shown],
    }


def exit_fraction(completions: Sequence[Completion], threshold: float) -> float:
    """Returns which share of episodes a threshold ended; 0 ends none."""
    ends = [
        any(0 < threshold <= each.confidence for each in _probes(row))
        for row in completions
    ]
    return _mean(ends)


def courses_of(
    completions: Sequence[Completion], accuracy: Float[np.ndarray, " B"]
) -> Courses:
    """Returns where episodes could have stopped.

    Args:
      completions: with probes; their answers are right where they equal a gold answer
        after normalisation, as for the reward `exact_match`.
      accuracy: of the answers that they gave.
    """
    shape = len(completions), max(len(_probes(row)) for row in completions)
    confidence, right = np.zeros(shape), np.full(shape, np.nan)
    calls, end_calls = np.zeros(shape, np.int64), np.zeros(shape[0], np.int64)
    for row, completion in enumerate(completions):
        golds, at = golds_of(completion), 0
        for turn in completion.turns:
            end_calls[row] += bool(turn.query)
            if turn.probe:
                confidence[row, at] = turn.probe.confidence
                right[row, at] = exact(turn.probe.answer, golds)
                calls[row, at] = end_calls[row]
                at += 1
    return Courses(confidence, right, calls, accuracy, end_calls)


def trade_off(courses: Courses) -> list[Point]:
    """Returns what thresholds would have done, no threshold first, then from the top.

    Thresholds are confidences that there were, since no other one stops other episodes:
    all of them, or some at equal distances in rank. Episodes that were not graded are
    left out.
    """
    graded = ~np.isnan(courses.end_right)
    courses = Courses(*(each[graded] for each in courses))
    seen = np.unique(courses.confidence[courses.confidence > 0])[::-1]
    places = np.linspace(0, max(len(seen) - 1, 0), min(_TRIED, len(seen)))
    tried = seen[places.round().astype(int)].tolist()
    return [_point(courses, threshold) for threshold in (0.0, *tried)]


def recommend(points: Sequence[Point], tolerance: float) -> Point:
    """Returns the lowest threshold that loses little, and above which none loses more.

    The second condition keeps it from a low one that is good by chance. Choose it on
    questions that nothing is reported of: on these it is flattering.

    Args:
      points: as `trade_off` returns them.
      tolerance: accuracy that may be lost.

    Returns:
      The point of no threshold, whose confidence is 0, where all lose too much.
    """
    chosen = points[0]
    for each in points[1:]:
        # Differences of means of 0 and 1 are exact up to rounding.
        if each.accuracy < points[0].accuracy - tolerance - 1e-12:
            break
        chosen = each
    return chosen


def _point(courses: Courses, threshold: float) -> Point:
    sure = courses.confidence >= (threshold or np.inf)
    ends = np.asarray(sure.any(axis=1))
    right, calls = courses.end_right.copy(), courses.end_calls.copy()
    if sure.shape[1]:
        rows, first = np.arange(len(ends)), sure.argmax(axis=1)
        right[ends] = courses.right[rows, first][ends]
        calls[ends] = courses.calls[rows, first][ends]
    return Point(threshold, _mean(right), _mean(calls), _mean(ends))


def _probes(completion: Completion) -> list[Probe]:
    return [turn.probe for turn in completion.turns if turn.probe]


def _mean(values: Sequence[int | float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
