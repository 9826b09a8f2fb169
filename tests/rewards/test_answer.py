"""Answers compared as the published scripts do, and what they leave open."""

import pytest

from grpo_jax.rewards.answer import answer_f1, exact, exact_match, f1, normalize
from grpo_jax.rewards.tags import SEARCH
from tests.rewards.agents import episode


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("a cat, an owl", "cat owl"),
        ("theatre", "theatre"),
        ("U.S.A.", "usa"),
        ("12,921", "12921"),
        ("1986\u201387", "198687"),
        ("\u201cLord\u201d", "lord"),
        ("Zürich", "zürich"),
        ("ﬁve\u00a0km²", "five km2"),
        ("$5 + 5%", "5 5"),
        ("", ""),
        (" \n", ""),
        ("The", "the"),
        ("A", "a"),
        ("?!", "?!"),
        ("The The", "the the"),
    ],
)
def test_normalize(text, normal):
    assert normalize(text) == normal


def test_exact():
    assert exact("the Old Rook.", ["East Rook", "old rook"]) == 1
    assert exact("Rook", ["Old Rook"]) == 0
    assert exact("", [""]) == exact(" ", ["?"]) == exact("x", []) == 0
    assert exact("A", ["a"]) == 1 and exact("The", ["a"]) == 0


@pytest.mark.parametrize(
    ("said", "golds", "value"),
    [
        ("old rook", ["Old Rook"], 1.0),
        ("Rook", ["Old Rook"], 2 / 3),
        ("rook rook", ["Rook"], 2 / 3),
        ("rook rook", ["Rook by Rook"], 0.8),
        ("Designated Hitter", ["the designated hitter rule"], 0.8),
        ("Rook", ["Mara", "East Rook", "Old East Rook"], 2 / 3),
        ("yes it is", ["yes"], 0.0),
        ("yes", ["yes it is"], 0.0),
        ("no", ["no."], 1.0),
        ("Dr No", ["no"], 0.0),
        ("", ["x"], 0.0),
        ("x", [], 0.0),
        ("1", ["1945"], 0.0),
    ],
)
def test_f1(said, golds, value):
    assert f1(said, golds) == pytest.approx(value)


def test_rewards_take_the_best_of_the_golds_and_else_the_reference():
    turn = "<answer>Rook</answer>"
    rows = [
        episode(SEARCH, turn, reference="Rook"),
        episode(SEARCH, turn, reference="Rook", golds=["Mara", "Old Rook"]),
        episode(SEARCH, "Rook", reference="Rook"),
    ]
    assert exact_match(SEARCH)(rows) == [1, 0, 0]
    assert answer_f1(SEARCH)(rows) == pytest.approx([1, 2 / 3, 0])
