"""Evaluations in parts, against numbers counted by hand."""

import numpy as np
import pytest

from grpo_jax.data.examples import Example
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import breakdown, statistics

COLUMNS = [
    {"hops": 2, "level": "hard"},
    {"hops": 10, "level": "easy"},
    {"hops": 2, "level": ""},
    {"hops": 0, "type": None},
]
# Two samples of each problem: exact match, F1.
VALUES = np.array(
    [
        *([1, 1], [0, 0.5]),
        *([0, 0.2], [0, 0.4]),
        *([1, 1], [np.nan, np.nan]),
        *([0, 0], [1, 1]),
    ]
)
CALLS = [1, 3, 0, 0, 2, 2, 4, 4]


def completions(with_turns: bool = True) -> list[Completion]:
    turns = [(Turn("x", "q"),) * calls + (Turn("y"),) for calls in CALLS]
    return [
        Completion(
            *("q", "", "r", 10 * row, True, row // 2),
            columns=COLUMNS[row // 2],
            turns=turns[row] if with_turns else (),
            sampled_tokens=row,
        )
        for row in range(8)
    ]


def parts(greedy=None, columns=None, **changes):
    examples = [
        Example(at, "q", "r", columns=each)
        for at, each in enumerate(columns or COLUMNS)
    ]
    table = RewardTable(("accuracy", "answer_f1"), VALUES, VALUES[:, 0])
    accuracy = VALUES[:, 0].reshape(4, 2)
    return breakdown.by_part(
        examples, completions(**changes), table, accuracy, greedy, 0.95
    )


def test_what_a_problem_is_part_of():
    assert [breakdown.parts_of(each) for each in COLUMNS] == [
        {"hops": "2", "level": "hard"},
        {"hops": "10", "level": "easy"},
        {"hops": "2"},
        {},
    ]
    assert breakdown.parts_of({"level": ["x"], "other": 1}) == {}


def test_parts_by_hand():
    found = parts(greedy=np.array([[1.0], [0.0], [1.0], [0.0]]))
    assert {name: list(each) for name, each in found.items()} == {
        "hops": ["2", "10"],
        "level": ["easy", "hard"],
    }
    two = found["hops"]["2"]
    assert two["problems"] == 2
    # Half of the first, all that was graded of the third.
    assert two["sampled"]["pass@1"]["mean"] == 0.75
    assert two["sampled"]["pass@1"] == statistics.mean_with_interval(
        np.array([0.5, 1.0]), 0.95
    )
    assert two["greedy"]["pass@1"]["mean"] == 1.0
    assert two["accuracy_mean"] == pytest.approx(2 / 3)
    assert two["answer_f1_mean"] == pytest.approx(2.5 / 3)
    assert two["completion_tokens_mean"] == (0 + 10 + 40 + 50) / 4
    assert two["sampled_tokens_mean"] == (0 + 1 + 4 + 5) / 4
    assert two["calls_mean"] == (1 + 3 + 2 + 2) / 4
    assert found["level"]["easy"] == found["hops"]["10"]


def test_without_turns_or_greedy_or_parts():
    plain = parts(with_turns=False)["hops"]["2"]
    assert "calls_mean" not in plain and "sampled_tokens_mean" not in plain
    assert plain["greedy"] is None
    assert parts(columns=[{}] * 4) == {}


def test_a_reward_without_a_value_has_no_mean():
    table = RewardTable(("f1",), np.full((8, 1), np.nan), np.zeros(8))
    found = breakdown.means(completions(), table, np.arange(8))
    assert found["f1_mean"] is None and found["calls_mean"] == 2.0


def test_a_column_of_names_is_no_kind():
    examples = [Example(at, "q", "r", columns={"type": f"t{at}"}) for at in range(21)]
    row = Completion("q", "", "r", 1, True, 0, {})
    table = RewardTable((), np.zeros((21, 0)), np.zeros(21))
    for count, columns in ((21, []), (20, ["type"])):
        some = RewardTable((), table.values[:count], table.totals[:count])
        found = breakdown.by_part(
            examples[:count], [row] * count, some, np.zeros((count, 1)), None, 0.95
        )
        assert list(found) == columns
