import numpy as np

from grpo_jax.trainer.statistics import pass_at_k
from grpo_jax.trainer.token_costs import accuracy_by_length, token_means

TOKENS = np.array([[10, 40], [64, 20]])
ACCURACY = np.array([[1.0, 0.0], [np.nan, 1.0]])
FINISHED = np.array([[True, True], [False, True]])


def test_means():
    assert token_means(TOKENS, ACCURACY, FINISHED) == {
        "all": 33.5,
        "right": 15.0,
        "wrong": 40.0,
        "finished": 70 / 3,
    }
    nothing = token_means(TOKENS, ACCURACY * np.nan, ~FINISHED & FINISHED)
    assert nothing == {"all": 33.5, "right": None, "wrong": None, "finished": None}


def test_accuracy_by_length():
    found = {
        each["tokens"]: each["accuracy"]
        for each in accuracy_by_length(TOKENS, ACCURACY, 64)
    }
    # The ungraded sample of the second problem does not count.
    assert (found[1], found[8], found[11]) == (0.0, 0.0, 0.25)
    assert (found[16], found[23], found[64]) == (0.25, 0.75, 0.75)
    assert found[64] == pass_at_k(ACCURACY, 1).mean()


def test_it_never_falls_and_ends_at_pass_at_1():
    rng = np.random.default_rng(0)
    tokens, accuracy = rng.integers(1, 901, (30, 4)), rng.integers(0, 2, (30, 4)) * 1.0
    points = accuracy_by_length(tokens, accuracy, 900)
    lengths = [point["tokens"] for point in points]
    assert lengths == sorted(set(lengths)) and len(lengths) == 13
    values = [point["accuracy"] for point in points]
    assert values == sorted(values)
    assert (lengths[-1], values[-1]) == (900, accuracy.mean())


def test_limits_without_room():
    points = accuracy_by_length(np.ones((1, 1), int), np.ones((1, 1)), 1)
    assert points == [{"tokens": 1, "accuracy": 1.0}]
    ungraded = accuracy_by_length(np.ones((1, 1), int), np.full((1, 1), np.nan), 1)
    assert ungraded == [{"tokens": 1, "accuracy": None}]
