"""Rewards of length: published values, order, and groups."""

import math
import random

import pytest

from grpo_jax.rewards import length as rewards
from tests.rewards.helpers import completion, given

CORRECTED = dict(correct_short=1.0, correct_long=0.5, wrong_short=-1.0, wrong_long=-0.5)


def cosines(lengths, correct: float | None, max_tokens: int = 3584, **ends):
    accuracy = given([correct] * len(lengths))
    reward = rewards.cosine(accuracy, max_tokens=max_tokens, **CORRECTED | ends)
    return reward([completion(tokens=each) for each in lengths])


def cosine(tokens: int, *arguments):
    return cosines([tokens], *arguments)[0]


@pytest.mark.parametrize(
    ("tokens", "correct", "wrong"),
    [
        (0, 1, -1),
        (896, 0.9268, -0.9268),
        (1792, 0.75, -0.75),
        (2688, 0.5732, -0.5732),
        (3584, 0.5, -0.5),
        (7168, 0.5, -0.5),
    ],
)
def test_cosine(tokens, correct, wrong):
    assert cosine(tokens, 1.0) == pytest.approx(correct, abs=5e-5)
    assert cosine(tokens, 0.0) == pytest.approx(wrong, abs=5e-5)
    assert cosine(tokens, None) is None


@pytest.mark.parametrize(("tokens", "value"), [(20, 0.9523), (80, 0.5477)])
def test_cosine_as_upstream_tests_it(tokens, value):
    assert cosine(tokens, 1.0, 100) == pytest.approx(value, abs=5e-5)
    assert cosine(tokens, 0.0, 100) == pytest.approx(-value, abs=5e-5)


def test_cosine_counts_tokens_and_not_characters():
    reward = rewards.cosine(given([1.0, 1.0]), max_tokens=100, **CORRECTED)
    short, long = reward([completion("x" * 999, tokens=0), completion(tokens=100)])
    assert (short, long) == (1.0, 0.5)


def test_the_ends_are_named_by_length():
    ends = dict(correct_short=8.0, correct_long=7.0, wrong_short=1.0, wrong_long=2.0)
    assert cosines((0, 10), 1.0, 10, **ends) == [8, 7]
    assert cosines((0, 10), 0.0, 10, **ends) == [1, 2]


def test_shorter_is_better_when_right_and_worse_when_wrong_and_right_beats_wrong():
    rng = random.Random(0)
    for _ in range(50):
        limit = rng.randint(1, 100_000)
        lengths = sorted(rng.randint(0, 2 * limit) for _ in range(50)) + [10**9]
        right = cosines(lengths, 1.0, limit)
        wrong = cosines(lengths, 0.0, limit)
        assert right == sorted(right, reverse=True)
        assert wrong == sorted(wrong)
        assert min(right) > max(wrong)
        assert all(map(math.isfinite, right + wrong))


GROUPS = [
    ((10, 20), (1, 1), (0.5, -0.5)),
    ((10, 20), (0, 0), (0, -0.5)),
    ((10, 20, 30), (1, 1, 1), (0.5, 0, -0.5)),
    ((10, 20, 30), (0, 1, 0), (0, 0, -0.5)),
    ((5, 5, 5), (1, 0, 1), (0, 0, 0)),
    ((100, 150, 200, 300), (1, 0, 1, 0), (0.5, 0, 0, -0.5)),
    ((7,), (1,), (0,)),
]


def group(lengths, index=0):
    return [completion(tokens=each, group=index) for each in lengths]


@pytest.mark.parametrize(("lengths", "correct", "values"), GROUPS)
def test_length(lengths, correct, values):
    assert rewards.length(given(correct))(group(lengths)) == list(values)


def test_every_group_is_by_itself():
    rows, correct, values = [], [], []
    for index, (lengths, flags, expected) in enumerate(GROUPS):
        rows += group(lengths, index)
        correct += flags
        values += expected
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    reward = rewards.length(given([correct[at] for at in order]))
    assert reward([rows[at] for at in order]) == [values[at] for at in order]


def test_length_without_a_verdict_is_none_but_has_its_length():
    reward = rewards.length(given([1, None, 1]))
    assert reward(group((10, 20, 30))) == [0.5, None, -0.5]
    reward = rewards.length(given([1, 1, None]))
    assert reward(group((10, 20, 30))) == [0.5, 0.0, None]
    assert rewards.length(given([]))([]) == []


@pytest.mark.parametrize(
    ("limit", "buffer", "tokens", "value"),
    [
        (100, 20, 50, 0),
        (100, 20, 80, 0),
        (100, 20, 81, -0.05),
        (100, 20, 90, -0.5),
        (100, 20, 95, -0.75),
        (100, 20, 100, -1),
        (100, 20, 110, -1),
        (3584, 1024, 2560, 0),
        (3584, 1024, 2561, -0.000977),
        (3584, 1024, 3072, -0.5),
        (3584, 1024, 3584, -1),
        (16384, 4096, 12288, 0),
        (16384, 4096, 14336, -0.5),
        (100, 100, 0, 0),
        (100, 1, 99, 0),
        (100, 1, 100, -1),
    ],
)
def test_soft_overlong(limit, buffer, tokens, value):
    reward = rewards.soft_overlong(max_tokens=limit, buffer_tokens=buffer)
    row = completion("x" * 999, tokens=tokens)
    assert reward([row]) == [pytest.approx(value, abs=5e-7)]
