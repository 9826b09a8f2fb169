"""What the code of Open-RS gave, value by value."""

import pytest

from grpo_jax.rewards import legacy
from grpo_jax.rewards.math import verify_math
from tests.rewards.helpers import completion, given


@pytest.mark.parametrize(
    ("characters", "correct", "wrong"),
    [
        (0, 1, 0),
        (896, 0.9268, -0.0732),
        (1792, 0.75, -0.25),
        (2688, 0.5732, -0.4268),
        (3584, 0.5, -0.5),
        (5376, 0.75, -0.25),
        (7168, 1, 0),
        (9000, 0.7412, -0.2588),
    ],
)
def test_cosine(characters, correct, wrong):
    reward = legacy.legacy_open_rs_cosine(given([1.0, 0.0]), max_characters=3584)
    rows = [completion("x" * characters, tokens=7)] * 2
    assert reward(rows) == pytest.approx([correct, wrong], abs=5e-5)


def test_an_unreadable_reference_is_worth_1_and_a_failed_check_nothing():
    values = [None, None, None, 1.0, 0.0]
    rows = [completion("x" * 100, group=group) for group in (0, 0, 1, 1, 1)]
    reward = legacy.legacy_open_rs_cosine(given(values), max_characters=100)
    assert reward(rows) == [1.0, 1.0, -0.5, 0.5, -0.5]
    rows = [completion(reference="$6$", group=each.group) for each in rows]
    reward = legacy.legacy_open_rs_accuracy(given(values))
    assert reward(rows) == [1.0, 1.0, 0.0, 1.0, 0.0]


def verified(completions):
    verdicts = [verify_math(each.text, each.reference) for each in completions]
    return [None if verdict is None else float(verdict) for verdict in verdicts]


@pytest.mark.parametrize(
    ("text", "reference", "shipped", "modern"),
    [
        (r"\boxed{\frac{63}{400}}", r"\frac{63}{400}", 1, 1),
        (r"\boxed{\frac{64}{400}}", r"\frac{63}{400}", 0, 0),
        (r"\boxed{3}", "6", 1, 0),
        (r"\boxed{3}", "", 1, None),
        (r"\boxed{3}", "garbage", 1, None),
        (r"\boxed{3}", r"\frac{", 1, None),
        ("", "$6$", 0, 0),
        ("There are 6 of them", "$6$", 0, 0),
        (r"\boxed{5} and then \boxed{6}", "$6$", 1, 1),
        (r"\boxed{6} and then \boxed{5}", "$6$", 0, 0),
    ],
)
def test_accuracy(text, reference, shipped, modern):
    rows = [completion(text, reference=reference)]
    assert verified(rows) == [modern]
    assert legacy.legacy_open_rs_accuracy(verified)(rows) == [shipped]
