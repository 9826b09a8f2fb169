import itertools

import numpy as np
import pytest

from grpo_jax.trainer.statistics import (
    binomial_standard_error,
    mean_of_samples,
    mean_ranks,
    mean_with_interval,
    pass_at_k,
    spearman,
    standard_error,
)


def samples(n, correct):
    return np.array([[1.0] * correct + [0.0] * (n - correct)])


@pytest.mark.parametrize(
    ("n", "correct", "k", "expected"),
    [
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),
        (16, 4, 1, 0.25),
        (16, 4, 8, 0.961538),
        (10, 3, 5, 0.916667),
        (32, 0, 8, 0.0),
        (32, 32, 1, 1.0),
        (4, 1, 4, 1.0),
    ],
)
def test_pass_at_k(n, correct, k, expected):
    assert pass_at_k(samples(n, correct), k)[0] == pytest.approx(expected, abs=5e-7)


def test_never_correct_is_exactly_zero_and_always_correct_exactly_one():
    assert pass_at_k(samples(32, 0), 8)[0] == 0.0
    assert pass_at_k(samples(32, 32), 8)[0] == 1.0


def test_against_enumeration():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (40, 6)).astype(float)
    values[rng.random(values.shape) < 0.2] = np.nan
    for k in range(1, 7):
        got = pass_at_k(values, k)
        for row, estimate in zip(values, got, strict=True):
            graded = row[~np.isnan(row)]
            draws = list(itertools.combinations(graded, k))
            if not draws:
                assert np.isnan(estimate)
                continue
            assert estimate == pytest.approx(np.mean([max(draw) for draw in draws]))


def test_ungraded_samples_do_not_count():
    values = np.array([[1.0, np.nan, 0.0, np.nan], [np.nan] * 4])
    np.testing.assert_allclose(pass_at_k(values, 1), [0.5, np.nan])
    np.testing.assert_allclose(pass_at_k(values, 2), [1.0, np.nan])
    assert np.isnan(pass_at_k(values, 3)).all()


def test_partial_credit_is_correct_above_a_half():
    assert pass_at_k(np.array([[0.5, 0.51, 0.0, 1.0]]), 1)[0] == 0.5


def test_interval_contains_the_mean_and_is_the_same_at_every_call():
    values = np.random.default_rng(1).random(50)
    first = mean_with_interval(values, 0.95)
    assert first["low"] < first["mean"] < first["high"]
    assert first["mean"] == values.mean()
    assert mean_with_interval(values, 0.95) == first


def test_interval_shrinks_with_the_root_of_n():
    rng = np.random.default_rng(2)
    widths = []
    for count in (100, 1600):
        interval = mean_with_interval(rng.random(count), 0.95)
        widths.append(interval["high"] - interval["low"])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_interval_is_that_of_the_normal_approximation():
    values = np.array([1.0] * 240 + [0.0] * 560)
    interval = mean_with_interval(values, 0.95)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 800)
    assert interval["low"] == pytest.approx(0.3 - half, abs=0.003)
    assert interval["high"] == pytest.approx(0.3 + half, abs=0.003)


def test_less_confidence_is_narrower():
    values = np.random.default_rng(3).random(40)
    wide, narrow = (mean_with_interval(values, c) for c in (0.95, 0.5))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


@pytest.mark.parametrize(("count", "beyond"), [(1, 0.975), (20, 0.1684), (400, 0.0092)])
def test_never_or_always_right_is_not_certain(count, beyond):
    never = mean_with_interval(np.zeros(count), 0.95)
    always = mean_with_interval(np.ones(count), 0.95)
    assert (never["mean"], never["low"]) == (0.0, 0.0)
    assert (always["mean"], always["high"]) == (1.0, 1.0)
    # So that 0 of n has probability .025: scipy.stats.beta.ppf(.975, 1, n).
    assert never["high"] == pytest.approx(beyond, abs=5e-5)
    assert always["low"] == pytest.approx(1 - beyond, abs=5e-5)


def test_nan_is_left_out_of_the_mean():
    assert mean_with_interval(np.array([0.5, np.nan, 0.5]), 0.95) == {
        "mean": 0.5,
        "low": 0.5,
        "high": 0.5,
        "standard_error": 0.0,
    }
    nothing = mean_with_interval(np.array([np.nan]), 0.95)
    assert all(np.isnan(value) for value in nothing.values()) and len(nothing) == 4


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_that_was_never_drawn_is_refused(k):
    with pytest.raises(ValueError, match=rf"pass@{k} needs {k} samples .* are 4"):
        pass_at_k(samples(4, 1), k)


@pytest.mark.parametrize(
    ("accuracy", "problems", "percent"),
    [(0.3, 30, 8.51), (14 / 30, 30, 9.26), (0.8, 40, 6.41), (0.838, 500, 1.65)],
)
def test_the_standard_error_of_one_sample_is_lightevals(accuracy, problems, percent):
    error = binomial_standard_error(accuracy, problems)
    assert 100 * error == pytest.approx(percent, abs=0.005)
    solved = np.arange(problems) < round(accuracy * problems)
    assert standard_error(solved.astype(float)) == pytest.approx(error)


def test_samples_of_a_problem_are_no_further_problems():
    rates = np.array([0.0, 1.0, 0.5, 0.25])
    error = mean_with_interval(rates, 0.95)["standard_error"]
    assert error == pytest.approx(np.std(rates, ddof=1) / 2)
    assert np.isnan(standard_error(np.array([0.5])))


def test_spearman_without_ties_is_the_textbook_formula():
    rng = np.random.default_rng(0)
    for size in (2, 3, 7):
        a, b = rng.permutation(size).astype(float), rng.permutation(size).astype(float)
        squares = ((a - b) ** 2).sum()
        expected = 1 - 6 * squares / (size * (size**2 - 1))
        assert spearman(a, np.exp(b)) == pytest.approx(expected)
    values = np.array([1.0, 1.0, 2.0])
    assert spearman(values, -values) == pytest.approx(-1)


def test_equal_values_share_a_rank():
    values = np.array([7.0, 3.0, 7.0, 9.0, 7.0])
    np.testing.assert_array_equal(mean_ranks(values), [3, 1, 3, 5, 3])


def test_the_mean_of_samples_is_of_what_is_known():
    values = np.array([[0.25, np.nan, 0.75], [np.nan] * 3, [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(mean_of_samples(values), [0.5, np.nan, 1 / 3])
