"""Exact counts of each difficulty."""

import pytest

from grpo_jax.curation.mixture import mixture, ranked
from tests.curation.helpers import problem, reasons

ROWS = [problem(f"q{i}", difficulty="abc"[i % 3]) for i in range(30)]


def kept(counts: dict[str, int], seed: int = 0) -> list[str]:
    verdicts = mixture(ROWS, counts, seed)
    return [p.question for p, drop in zip(ROWS, verdicts, strict=True) if not drop]


def test_counts_are_exact():
    verdicts = mixture(ROWS, {"a": 3, "b": 10}, 0)
    assert reasons(verdicts).count("") == 13
    assert reasons(verdicts).count("not_drawn") == 7
    assert reasons(verdicts).count("other_difficulty") == 10


def test_draws():
    few, more = kept({"a": 3, "b": 2}), kept({"b": 4, "a": 7})
    assert few == kept({"a": 3, "b": 2})
    assert few != kept({"a": 3, "b": 2}, seed=1)
    assert set(few) < set(more)


def test_impossible_counts():
    with pytest.raises(ValueError, match=r"'d', which no problem has.*'a' \(10\), 'b'"):
        mixture(ROWS, {"d": 1}, 0)
    with pytest.raises(ValueError, match="asks for 11 problems .* 'a' and 10 are left"):
        mixture(ROWS, {"a": 11}, 0)


def test_labels_from_easy_to_hard():
    assert ranked(["Level 10", "Level 2", "Level 2"]) == ["Level 2", "Level 10"]
    assert ranked(["10", "9.5", "", "2"]) == ["", "2", "9.5", "10"]
    assert ranked(["hard", "2", "²", "easy"]) == ["2", "easy", "hard", "²"]
