"""Forms in which texts are compared."""

import pytest

from grpo_jax.curation import text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("Find, the SUM of $n$!", ["find", "the", "sum", "of", "n"]),
        (r"\frac{1}{2}x_1", ["frac", "1", "2", "x", "1"]),
        ("ﬁnd Ⅻ naïve", ["find", "xii", "naïve"]),
        ("求3个整数n的和", list("求3个整数n的和")),
        ("求 12ab 和", ["求", "12ab", "和"]),
        ("Сколько: 5?", ["сколько", "5"]),
        ("?!", []),
    ],
)
def test_words(given, words):
    assert text.words(given) == words


def test_symbols_keep_operators():
    assert text.symbols("Is $x+1 = 2$?") == ["is", "x", "+", "1", "=", "2"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is  $1+1$?", "what is 1+1"),
        (r"Let \(x\) be \dfrac{1}{2}.", r"Let $x$ be \frac{1}{2}"),
        (r"$\left(1,\,2\right)$", "(1, 2)"),
        ("It is 1, then 2.", "it is 1 then 2"),
    ],
)
def test_what_two_copies_have_in_common(one, other):
    assert text.symbols(one) == text.symbols(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1+1", "1-1"),
        ("1.5", "15"),
        ("1.5", "1 5"),
        ("x^2", "x_2"),
        ("a<b", "a>b"),
        ("5!?", "5?"),
        ("f'(x)", "f(x)"),
        ("1:2", "1 2"),
    ],
)
def test_what_two_problems_do_not(one, other):
    assert text.symbols(one) != text.symbols(other)


def test_ngrams():
    assert text.ngrams(["a", "b", "c"], 2) == ["a b", "b c"]
    assert text.ngrams(["a", "b"], 2) == ["a b"]
    assert text.ngrams(["a"], 2) == ["a"]
    assert text.ngrams([], 2) == []
