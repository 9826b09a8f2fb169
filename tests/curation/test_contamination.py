"""Decontamination by n-grams of words."""

import pytest

from grpo_jax.curation.contamination import contamination
from tests.curation.helpers import problem, problems, reasons

BENCHMARK = "Find the sum of all positive integers n such that n divides 12"


def hits(question: str, benchmark: str = BENCHMARK, ngram: int = 8) -> bool:
    other = problem(benchmark, where="b:1", source="b")
    return contamination([problem(question)], [other], ngram) != [None]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Find the sum of all positive integers n where x", True),
        ("find THE  sum of all positive integers n", True),
        ("Find the sum of all positive integers", False),  # 7 words
        ("the sum of all positive integers n such that", True),
        ("integers n such that n divides 12", False),  # 7 words, at the end
        # open-r1 keeps punctuation and lets this pass.
        ("Find, the sum of all positive integers n", True),
        ("Find the $sum$ of all (positive) integers \\(n\\)", True),
        ("Find the product of all positive integers n such that it is 12", False),
        ("", False),
    ],
)
def test_eight_grams(question, expected):
    assert hits(question) is expected


def test_the_length_of_ngrams():
    assert hits("Find the sum of all positive integers", ngram=7)
    assert not hits("Find the sum of all positive integers n", ngram=13)
    assert hits(BENCHMARK, ngram=13)
    assert hits(BENCHMARK, ngram=100)


def test_short_problems_are_compared_whole():
    assert hits("What is TWO plus two", "What is two plus two?")
    assert not hits("What is two plus two hundred", "What is two plus two?")
    assert not hits("two plus two", "What is two plus two?")
    assert not hits("?", "!")


def phrases(questions: list[str], benchmark: str, phrase_count: int) -> list[str]:
    others = [problem(benchmark, where="b:1", source="b")]
    return reasons(contamination(problems(*questions), others, 3, phrase_count))


def test_phrases_of_many_problems_pass():
    benchmark = "given x find the sum of all m and n"
    other = ["find the sum of one", "find the sum of two", "find the sum of all"]
    assert phrases(other, benchmark, 0) == ["in_b"] * 3
    # "sum of all" is in one of the three only.
    assert phrases(other, benchmark, 3) == ["", "", "in_b"]
    assert phrases(other, benchmark, 4) == ["in_b"] * 3


def test_a_problem_copied_many_times_is_no_phrase():
    benchmark = "given x find the sum of all m and n"
    copies = [f"{benchmark} {i}" for i in range(5)]
    assert phrases(copies, benchmark, 2) == ["in_b"] * 5
    # 3 of 8 n-grams are few, 4 are half.
    assert phrases(["given x find the sum"] * 2, benchmark, 2) == ["", ""]
    assert phrases(["given x find the sum of"] * 2, benchmark, 2) == ["in_b"] * 2


def test_unicode():
    text = "Найдите сумму всех натуральных чисел n таких что"
    assert hits(text.upper() + " n > 1", text)
    assert hits("已知正整数n满足条件，求和", "设已知正整数n满足条件")
    assert not hits("求所有整数的和", "求所有素数的和")


def test_the_closest_problem_is_named():
    others = [
        problem("zero one two three", where="b:1", source="b"),
        problem("one two three four five", where="c:1", source="c"),
    ]
    verdicts = contamination(problems("x one two three four y"), others, 3)
    assert reasons(verdicts) == ["in_c"]
    assert verdicts[0].collides_with == "c:1"
    assert verdicts[0].evidence == "2 of 3 n-grams, such as 'one two three'"
