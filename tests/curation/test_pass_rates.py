"""What a policy solves: sampled once, kept, judged."""

import dataclasses
from collections.abc import Sequence

import pytest

from grpo_jax.curation import pass_rates
from grpo_jax.curation.pass_rates import Policy
from grpo_jax.curation.problems import Problem, Solved
from tests.curation.helpers import problem, problems, reasons

QUESTIONS = [f"What is {i}?" for i in range(7)]


@dataclasses.dataclass
class Sampler:
    """Solves question i with i right samples; dies before a question if told to."""

    dies_at: str = ""
    asked: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, rows: Sequence[Problem]) -> list[Solved]:
        if self.dies_at in [row.question for row in rows]:
            raise KeyboardInterrupt
        self.asked += [row.question for row in rows]
        return [Solved(QUESTIONS.index(row.question), 8, 8) for row in rows]

    def policy(self, **facts: int) -> Policy:
        return Policy("test", {"seed": 0, **facts}, self, at_once=2)


def rates(rows: Sequence[Problem]) -> list[float | None]:
    return [row.pass_rate for row in rows]


def test_a_run_that_was_killed_goes_on(tmp_path):
    rows, path = problems(*QUESTIONS), tmp_path / "stages" / "pass_rates.jsonl"
    whole = tmp_path / "whole.jsonl"
    expected = pass_rates.measure(rows, Sampler().policy(), whole)
    assert rates(expected) == [i / 8 for i in range(7)]

    dies = Sampler(dies_at=QUESTIONS[4])
    with pytest.raises(KeyboardInterrupt):
        pass_rates.measure(rows, dies.policy(), path)
    assert dies.asked == QUESTIONS[:4]
    with path.open("a") as file:
        file.write('{"policy": "half a li')
    goes_on = Sampler()
    assert pass_rates.measure(rows, goes_on.policy(), path) == expected
    assert goes_on.asked == QUESTIONS[4:]
    assert path.read_bytes() == whole.read_bytes()

    again = Sampler()
    assert pass_rates.measure(rows[::-1], again.policy(), path) == expected[::-1]
    assert again.asked == []


def test_what_was_not_sampled_before_is(tmp_path):
    path = tmp_path / "pass_rates.jsonl"
    pass_rates.measure(problems(*QUESTIONS[:3]), Sampler().policy(), path)
    more, other, answered = Sampler(), Sampler(), Sampler()
    pass_rates.measure(problems(*QUESTIONS[1:5]), more.policy(), path)
    assert more.asked == QUESTIONS[3:5]
    pass_rates.measure(problems(*QUESTIONS[:2]), other.policy(seed=1), path)
    assert other.asked == QUESTIONS[:2]
    pass_rates.measure([problem(QUESTIONS[0], "2")], answered.policy(), path)
    assert answered.asked == QUESTIONS[:1]


def solved(right: int, graded: int = 4, sampled: int = 4) -> Problem:
    row = problem("q", difficulty="before")
    return dataclasses.replace(row, solved=Solved(right, graded, sampled))


def test_limits_are_kept_and_ungraded_samples_count_neither_way():
    rows = [solved(0), solved(1), solved(3), solved(4), solved(2, 3), solved(0, 0)]
    rows.append(solved(0, 0, 0))
    verdicts = pass_rates.within(rows, minimum=0.25, maximum=0.75)
    assert reasons(verdicts) == [
        "too_hard",
        "",
        "",
        "too_easy",
        "",
        "not_graded",
        "long_prompt",
    ]
    assert verdicts[3].evidence == "4 of 4 samples are right"
    every = pass_rates.within(rows[:5], minimum=0.0, maximum=1.0)
    assert every == [None] * 5


def test_bands_begin_at_their_rate():
    bands = {"hard": 0.0, "easy": 0.75, "medium": 0.25}
    rows = [solved(0), solved(1), solved(2), solved(3), solved(4), solved(0, 0)]
    labels = [row.difficulty for row in pass_rates.labelled(rows, bands)]
    assert labels == ["hard", "medium", "medium", "easy", "easy", "before"]
