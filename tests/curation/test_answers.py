"""References that the verifier can work with."""

from grpo_jax.curation import answers
from tests.curation.helpers import problem, reasons

READABLE = ["2", "1,234", r"\frac{1}{2}", r"$\sqrt{3}$", "(1, 2)", "x = 5", r"\{1,2\}"]


def test_gradable(monkeypatch):
    monkeypatch.setattr(answers, "_CHECK_SECONDS", 1.0)
    endless = "9^{9^{9^9}}"
    given = [*READABLE, "see above", "?", "north-east", "2", endless]
    verdicts = answers.gradable([problem("q", answer) for answer in given])
    found = dict(zip(given, reasons(verdicts), strict=True))
    assert [answer for answer in READABLE if found[answer]] == []
    assert (
        found["see above"] == found["?"] == found["north-east"] == "answer_unreadable"
    )
    assert found[endless] == "answer_check_failed"
    assert verdicts[len(READABLE)].evidence == "see above"


def test_nothing_to_check():
    assert answers.gradable([]) == []


def test_has_box():
    solutions = [r"So \boxed{2}.", r"So \boxed{", "So 2.", ""]
    rows = [problem("q", solution=each) for each in solutions]
    assert reasons(answers.has_box(rows)) == ["", *["no_box"] * 3]
