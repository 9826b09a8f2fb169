"""Calibration against numbers worked out by hand, and against slow definitions."""

import itertools
import math

import numpy as np
import pytest

from grpo_jax.trainer.calibration import (
    auroc,
    expected_calibration_error,
    reliability,
)

NAN = float("nan")


def ece(confidence, right, **options):
    return expected_calibration_error(
        np.array(confidence, float), np.array(right, float), **options
    )


def area(confidence, right):
    return auroc(np.array(confidence, float), np.array(right, float))


def test_equal_widths_by_hand():
    confidence = [0.05, 0.1, 0.15, 0.95, 0.85, 1.0]
    right = [0, 1, 0, 1, 0, 1]
    # (0, .1]: mean .075, half right; (.1, .2]: .15, none; (.8, .9]: .85, none;
    # (.9, 1]: .975, all.
    expected = (2 * 0.425 + 0.15 + 0.85 + 2 * 0.025) / 6
    assert ece(confidence, right) == pytest.approx(expected)
    # In one bin errors of both signs cancel: .51666 confident, half right.
    assert ece(confidence, right, bins=1) == pytest.approx(3.1 / 6 - 0.5)


def test_adaptive_by_hand():
    confidence = [0.9, 0.91, 0.92, 0.93, 0.99, 0.2]
    right = [1, 0, 1, 1, 1, 0]
    # Bins of two: .2 and .9, .91 and .92, .93 and .99.
    expected = 2 * (abs(0.55 - 0.5) + abs(0.915 - 0.5) + abs(0.96 - 1)) / 6
    assert ece(confidence, right, bins=3, adaptive=True) == pytest.approx(expected)


def test_edges_belong_to_the_lower_bin():
    edges = np.arange(11) / 10
    counts = [each.count for each in reliability(edges, np.zeros(11))]
    assert counts == [2, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_equal_confidences_are_not_parted():
    confidence = np.array([0.5] * 5 + [0.9])
    right = np.array([1.0, 1, 0, 0, 0, 1])
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 4, 3]):
        table = reliability(confidence[order], right[order], bins=3, adaptive=True)
        assert [(each.count, each.accuracy) for each in table] == [(5, 0.4), (1, 1.0)]


def test_adaptive_bins_hold_equally_many():
    rng = np.random.default_rng(0)
    for count, bins in ((10, 10), (100, 7), (3, 10), (1, 1)):
        confidence = rng.random(count)
        table = reliability(confidence, np.ones(count), bins=bins, adaptive=True)
        sizes = [each.count for each in table]
        assert sum(sizes) == count and max(sizes) - min(sizes) <= 1
        means = [each.confidence for each in table]
        assert means == sorted(means)


@pytest.mark.parametrize("adaptive", [False, True])
def test_perfect_and_worst(adaptive):
    assert ece([0, 0, 1, 1], [0, 0, 1, 1], adaptive=adaptive) == 0
    assert ece([0, 0, 1, 1], [1, 1, 0, 0], adaptive=adaptive) == 1
    assert ece([0.25] * 4, [1, 0, 0, 0], adaptive=adaptive) == 0


def test_against_the_definition():
    rng = np.random.default_rng(1)
    for _ in range(20):
        confidence = rng.integers(0, 21, 40) / 20
        right = rng.integers(0, 2, 40).astype(float)
        total = 0.0
        for m in range(1, 11):
            some = [
                (c, r)
                for c, r in zip(confidence, right, strict=True)
                if (m - 1) / 10 < c <= m / 10 or (m == 1 and c == 0)
            ]
            if some:
                sums = [sum(each) for each in zip(*some, strict=True)]
                total += abs(sums[0] - sums[1]) / 40
        assert ece(confidence, right) == pytest.approx(total)


@pytest.mark.parametrize(
    ("confidence", "right", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([0.9, 0.8, 0.2], [1, 1, 0], 1.0),
        ([0.2, 0.8], [1, 0], 0.0),
        ([0.5, 0.5, 0.5], [1, 0, 0], 0.5),
        ([0.5, 0.5, 0.7], [1, 0, 0], 0.25),
        ([0.3], [1], NAN),
        ([0.3, 0.4], [0, 0], NAN),
        ([], [], NAN),
    ],
)
def test_areas_by_hand(confidence, right, expected):
    assert area(confidence, right) == pytest.approx(expected, nan_ok=True)


def test_the_area_is_that_of_all_pairs():
    rng = np.random.default_rng(2)
    for _ in range(20):
        confidence = rng.integers(0, 6, 15) / 5
        right = np.append(rng.integers(0, 2, 13), [0, 1]).astype(float)
        pairs = itertools.product(confidence[right == 1], confidence[right == 0])
        scores = [(a > b) + (a == b) / 2 for a, b in pairs]
        assert area(confidence, right) == pytest.approx(np.mean(scores))
        # Only the order of confidences counts; the other way round it is the rest.
        assert area(confidence**3, right) == area(confidence, right)
        assert area(1 - confidence, right) == pytest.approx(1 - np.mean(scores))


def test_what_is_not_known_is_left_out():
    assert ece([0.5, 0.9], [1, NAN]) == 0.5
    assert area([0.5, 0.9, 0.6], [1, NAN, 0]) == 0.0
    assert math.isnan(ece([0.5], [NAN])) and math.isnan(ece([], [], adaptive=True))


def test_what_is_no_confidence_is_refused():
    for value in (1.01, -0.1, NAN):
        with pytest.raises(ValueError, match="a confidence is .*from 0 to 1"):
            ece([0.5, value], [1, 0])
    with pytest.raises(ValueError, match="bins is 0: use 1 or more"):
        ece([0.5], [1], bins=0)
