"""What stopping at a confidence would have done, by hand."""

import dataclasses

import numpy as np
import pytest

from grpo_jax.budget_config import BudgetConfig
from grpo_jax.rewards.base import Probe, Turn, turns_of_row, turns_to_row
from grpo_jax.trainer import budget, early_exit
from grpo_jax.trainer.early_exit import Point
from tests.trainer.budgets import completion, trajectories

NAN = float("nan")


def probed(*probes):
    """Turns that ask and are probed `(confidence, answer)`, then an answer."""
    turns = [
        Turn("t", "q", probe=Probe(answer, confidence, confidence / 2, 3))
        for confidence, answer in probes
    ]
    return completion([*turns, Turn("a")])


# The right answer is r. Sure too early; never sure; right early; no probe; not graded.
EPISODES = [
    probed((0.9, "x"), (0.8, "The R")),
    probed((0.1, "x"), (0.2, "x")),
    probed((0.6, "r"), (0.7, "r"), (0.7, "r")),
    probed(),
    probed((1.0, "r")),
]
ACCURACY = np.array([1.0, 0, 1, 1, NAN])


def test_courses():
    courses = early_exit.courses_of(EPISODES, ACCURACY)
    np.testing.assert_array_equal(
        courses.confidence,
        [[0.9, 0.8, 0], [0.1, 0.2, 0], [0.6, 0.7, 0.7], [0] * 3, [1, 0, 0]],
    )
    np.testing.assert_array_equal(
        courses.right,
        [[0, 1, NAN], [0, 0, NAN], [1, 1, 1], [NAN] * 3, [1, NAN, NAN]],
    )
    np.testing.assert_array_equal(courses.calls[2], [1, 2, 3])
    np.testing.assert_array_equal(courses.end_calls, [2, 2, 3, 0, 1])


def test_every_threshold_stops_at_the_first_probe_that_is_sure():
    points = early_exit.trade_off(early_exit.courses_of(EPISODES, ACCURACY))
    assert points == [
        Point(0.0, 0.75, 7 / 4, 0.0),
        Point(0.9, 0.5, 6 / 4, 0.25),
        Point(0.8, 0.5, 6 / 4, 0.25),
        Point(0.7, 0.5, 5 / 4, 0.5),
        Point(0.6, 0.5, 4 / 4, 0.5),
        Point(0.2, 0.5, 4 / 4, 0.75),
        Point(0.1, 0.5, 3 / 4, 0.75),
    ]
    without = early_exit.courses_of([probed(), probed()], np.ones(2))
    assert early_exit.trade_off(without) == [Point(0.0, 1.0, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "chosen"),
    [
        ([0.7, 0.7, 0.69, 0.6], 0.01, 0.8),
        ([0.7, 0.7, 0.69, 0.6], 0.0, 0.9),
        ([0.7, 0.6, 0.7, 0.7], 0.05, 0.0),  # good further down by chance
        ([0.7, 0.8, 0.9, 0.71], 0.0, 0.7),
        ([0.7], 0.1, 0.0),
    ],
)
def test_the_lowest_threshold_that_loses_little(accuracies, tolerance, chosen):
    thresholds = (0.0, 0.9, 0.8, 0.7)
    points = [
        Point(each, accuracy, 1.0, 0.0)
        for each, accuracy in zip(thresholds, accuracies, strict=False)
    ]
    assert early_exit.recommend(points, tolerance).confidence == chosen


def test_the_record_of_an_evaluation():
    config = BudgetConfig(probe_tokens=16, exit_tolerance=0.25).seal()
    found = early_exit.summary(EPISODES, ACCURACY, config)
    right = np.array([0, 1, 0, 0, 1, 1, 1, 1])
    confidence = np.array([0.9, 0.8, 0.1, 0.2, 0.6, 0.7, 0.7, 1.0])
    assert found["probes"] == 8
    assert found["probe_tokens_mean"] == 3 * 8 / 5
    assert found["answered_fraction"] == 1 and found["right_fraction"] == 5 / 8
    # Two bins of equal confidences are alone with themselves, but for the .7s.
    assert found["ece"] == pytest.approx(np.abs(confidence - right).sum() / 8)
    assert found["auroc"] == found["auroc_of_lowest"] == pytest.approx(11 / 15)
    assert found["exit_fraction"] == 0 and found["calls_mean"] == 8 / 5
    assert found["recommended"]["confidence"] == 0.1
    assert [each["confidence"] for each in found["trade_off"]][0] == 0.0
    # Where episodes did stop, the rest of them is not known.
    sure = dataclasses.replace(config, exit_confidence=0.75)
    found = early_exit.summary(EPISODES, ACCURACY, sure)
    assert found["exit_fraction"] == 2 / 5 and "recommended" not in found
    for never in (NAN, 0.0):
        found = early_exit.summary(EPISODES, np.full(5, never), config)
        assert "recommended" not in found


def test_many_probes_are_tried_at_some_thresholds():
    rng = np.random.default_rng(0)
    rows = [probed((float(rng.uniform()), "r")) for _ in range(700)]
    points = early_exit.trade_off(early_exit.courses_of(rows, np.zeros(700)))
    tried = [each.confidence for each in points[1:]]
    assert len(tried) == 500 and tried == sorted(tried, reverse=True)
    seen = [row.turns[0].probe.confidence for row in rows]
    assert tried[0] == max(seen) and tried[-1] == min(seen)
    assert points[-1].accuracy == 1


def test_probes_are_written_down_and_read_again():
    turns = EPISODES[0].turns
    row = turns_to_row(turns)
    assert "probe" in row["turns"][0] and "probe" not in row["turns"][-1]
    assert turns_of_row(row) == turns


def test_probes_cost_what_they_write():
    config = BudgetConfig(token_cost=1000.0)
    texts = trajectories([0, 0], [10, 10])
    found = budget.costs([EPISODES[2], EPISODES[3]], texts, config)
    np.testing.assert_allclose(found, [19, 10])
