"""Paired statistics against enumeration, known values and each other."""

import itertools
import math

import numpy as np
import pytest

from grpo_jax.trainer.paired import difference, holm, mcnemar_test, sign_flip_test


def rates(seed: int, problems: int = 40, samples: int = 8) -> np.ndarray:
    """Pass rates of problems of different difficulty."""
    rng = np.random.default_rng(seed)
    return rng.binomial(samples, rng.beta(0.5, 0.5, problems)) / samples


def test_no_difference_on_few_problems_is_not_certain():
    values = np.array([0.0, 1.0, 1.0, 0.5] * 5)
    found = difference(values, values, 0.95)
    assert found.mean == 0 and found.p_value == 1
    # None of 20 has probability .025: scipy.stats.beta.ppf(.975, 1, 20).
    assert (-found.low, found.high) == pytest.approx((0.1684, 0.1684), abs=5e-5)


def test_a_run_is_no_different_from_itself():
    same = difference(rates(0), rates(0), 0.95)
    assert (same.mean, same.low + same.high, same.standard_error) == (0, 0, 0)
    assert (same.p_value, same.problems_needed, same.smallest_seen) == (1, 0, 0)


def test_the_other_way_round_is_the_same_with_another_sign():
    a, b = rates(0), rates(1)
    one, other = difference(a, b, 0.95), difference(b, a, 0.95)
    assert one.mean == -other.mean and one.p_value == other.p_value
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.01)
    assert one.low < one.mean < one.high
    assert one.problems_needed == other.problems_needed


def test_pairing_sees_what_two_intervals_do_not():
    a = np.linspace(0, 0.9, 50)
    change = difference(a, a + 0.02 + 0.01 * (np.arange(50) % 2), 0.95)
    assert change.low > 0 and change.p_value < 0.001
    assert change.high - change.low < 0.01 < np.std(a) / math.sqrt(50)


def test_the_interval_is_that_of_the_normal_approximation():
    rng = np.random.default_rng(3)
    a, b = rng.random(400), rng.random(400)
    change = difference(a, b, 0.95)
    half = 1.96 * np.std(b - a, ddof=1) / 20
    assert change.standard_error == pytest.approx(half / 1.96)
    assert change.low == pytest.approx(change.mean - half, abs=0.003)
    assert change.high == pytest.approx(change.mean + half, abs=0.003)


def test_problems_needed():
    # Differences of +-1 with mean 0.1: 2.8^2 sd^2 / 0.01, with sd^2 = 0.99 * 200 / 199.
    change = np.array([1.0] * 110 + [-1.0] * 90)
    found = difference(np.zeros(200), change, 0.95)
    assert found.problems_needed == pytest.approx(781, abs=1)
    assert found.smallest_seen == pytest.approx(2.8016 * found.standard_error, rel=1e-4)
    # So many problems would have seen it.
    more = np.tile(change, 4)
    assert difference(np.zeros(800), more, 0.95).smallest_seen < 0.1


def test_nothing_cannot_be_compared():
    with pytest.raises(ValueError, match="0 and 0 problems cannot be paired"):
        difference(np.zeros(0), np.zeros(0), 0.95)
    single = difference(np.array([0.0]), np.array([1.0]), 0.95)
    assert single.p_value == 1 and math.isnan(single.standard_error)
    assert single.problems_needed == 0


@pytest.mark.parametrize("seed", range(5))
def test_sign_flips_against_enumeration(seed):
    change = np.random.default_rng(seed).integers(-4, 5, 7) / 4
    seen = abs(change.sum())
    flips = [
        abs(np.dot(signs, change)) >= seen - 1e-9
        for signs in itertools.product((-1, 1), repeat=7)
    ]
    assert sign_flip_test(change) == pytest.approx(np.mean(flips))


def test_many_differences_are_sampled():
    change = np.array([1.0] * 16 + [-1.0] * 4)
    assert sign_flip_test(change) == pytest.approx(0.0118, abs=0.003)
    assert sign_flip_test(np.ones(40)) == pytest.approx(1 / 20_001)
    assert sign_flip_test(np.array([0.25] * 10 + [-0.25] * 10)) == 1


@pytest.mark.parametrize(
    ("a_only", "b_only", "p_value"),
    [(0, 0, 1.0), (1, 1, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (9, 1, 22 / 1024)],
)
def test_mcnemar(a_only, b_only, p_value):
    assert mcnemar_test(a_only, b_only) == pytest.approx(p_value)
    # Of one sample a problem, flipping signs is the same test.
    change = np.array([-1.0] * a_only + [1.0] * b_only + [0.0] * 6)
    assert sign_flip_test(change) == pytest.approx(p_value)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []
