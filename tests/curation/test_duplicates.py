"""Exact and near duplicates."""

import itertools
import random

import pytest

from grpo_jax.curation import duplicates, text
from tests.curation.helpers import problem, problems, reasons

LONG = (
    "A farmer has a rectangular field that is three times as long as it is wide, and "
    "a fence of 240 metres surrounds all of it. What is the area of the field?"
)


def test_exact_keeps_the_first():
    rows = problems("What is $1+1$?", "what is  1+1", "What is $1-1$?", "WHAT IS 1+1")
    verdicts = duplicates.exact(rows)
    assert reasons(verdicts) == ["", "duplicate", "", "duplicate"]
    assert verdicts[3].collides_with == "row 0"


def test_exact_says_where_answers_differ():
    rows = [problem("2+2?", "4"), problem("2+2", "5"), problem("2+2.", r"\dfrac{8}{2}")]
    verdicts = duplicates.exact(rows)
    assert reasons(verdicts) == ["", *["duplicate_other_answer"] * 2]
    assert "'4' and '5'" in verdicts[1].evidence


def test_near():
    reworded = LONG.replace("What is the area", "What is the total area")
    rows = [problem(LONG, where="a"), problem("Another one"), problem(reworded)]
    verdicts = duplicates.near(rows, 0.8)
    assert reasons(verdicts) == ["", "", "near_duplicate"]
    assert verdicts[2].collides_with == "a"
    assert duplicates.near(rows, 0.95)[2] is None


def test_another_number_is_another_problem():
    rows = [problem(LONG, "2700"), problem(LONG.replace("240", "400"), "7500")]
    assert reasons(duplicates.near(rows, 0.8)) == ["", ""]


def test_near_compares_with_rows_that_are_kept():
    """A chain of small changes does not lose its end: only the middle is near both."""
    words = [f"w{i}" for i in range(40)]
    a, b = list(words), list(words)
    a[10], b[30] = "a", "b"
    rows = problems(" ".join(a), " ".join(words), " ".join(b))
    assert reasons(duplicates.near(rows, 0.8)) == ["", "near_duplicate", ""]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_near_finds_what_comparing_all_pairs_finds(threshold):
    rng = random.Random(0)
    rows = problems(
        *(
            " ".join(rng.choice("abc") for _ in range(rng.randrange(1, 14)))
            for _ in range(120)
        )
    )
    kept, expected = [], []
    for row in rows:
        grams = set(text.ngrams(text.symbols(row.question), 3))
        is_near = any(len(grams & k) / len(grams | k) >= threshold for k in kept)
        expected.append("near_duplicate" if is_near else "")
        kept += [] if is_near else [grams]
    assert reasons(duplicates.near(rows, threshold)) == expected
    assert len(set(expected)) == 2


def test_questions_without_words():
    assert reasons(duplicates.near(problems("?", "!"), 0.8)) == ["", ""]
    assert not any(itertools.chain(duplicates.near([], 0.8), duplicates.exact([])))
