"""Rows become examples, held-out rows stay out, and bad rows are named."""

import json
import pathlib

import numpy as np
import pytest

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.rewards.base import Completion
from grpo_jax.tasks.load import load_task
from grpo_jax.tasks.math import read_examples

ROWS = [
    {"problem": f"{i}+{i}?", "gold": 2 * i, "work": f"it is {2 * i}"} for i in range(20)
]


def write(path: pathlib.Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def config(path: str, **changes) -> TaskConfig:
    columns = {"question_column": "problem", "reference_column": "gold"}
    return TaskConfig(name="math", train_path=path, **{**columns, **changes})


def read(tmp_path, *rows, **changes):
    path = write(tmp_path / "rows.jsonl", rows)
    return read_examples(path, config(path, **changes))


def test_columns_are_configurable(tmp_path):
    example = read(tmp_path, *ROWS[:3], solution_column="work")[2]
    assert (example.id, example.question, example.reference) == (2, "2+2?", "4")
    assert example.solution == "it is 4"
    assert example.columns == ROWS[2]
    assert read(tmp_path, ROWS[0])[0].solution == ""


@pytest.mark.parametrize(
    ("gold", "expected"),
    [
        ("18", "18"),
        (0, "0"),
        (2.5, "2.5"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("1,234", "1,234"),
        ("He has 2*9=<<2*9=18>>18.\n#### 18", "18"),
        ("a #### 3 b\n#### 1,234,000 ", "1234000"),
    ],
)
def test_reference(tmp_path, gold, expected):
    (example,) = read(tmp_path, {"problem": "q", "gold": gold})
    assert example.reference == expected


def test_original_gsm8k_row_serves_as_reference_and_solution(tmp_path):
    row = {"problem": "q", "gold": "9+9=18\n#### 18"}
    (example,) = read(tmp_path, row, solution_column="gold")
    assert (example.reference, example.solution) == ("18", "9+9=18\n#### 18")


@pytest.mark.parametrize("gold", [None, "", " ", ["1"], True, "because ####"])
def test_bad_reference_names_row_column_and_flag(tmp_path, gold):
    message = r"rows\.jsonl, row 1 \(from 0\): column 'gold' .*reference_column\) is "
    with pytest.raises(ValueError, match=message):
        read(tmp_path, ROWS[0], {"problem": "q", "gold": gold})


def test_bad_question_names_row_column_and_flag(tmp_path):
    message = r"row 0 \(from 0\): column 'problem' \(config\.task\.question_column\)"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, {"problem": None, "gold": "1"})


def test_of_several_solutions_the_first_verified_one_is_taken(tmp_path):
    row = {"problem": "1+1?", "gold": "2", "work": ["it is 3", "so 1+", "it is 2"]}
    verdicts = {
        "correctness_math_verify": [False, True, True],
        "is_reasoning_complete": [True, False, True],
    }

    def solution(row):
        return read(tmp_path, row, solution_column="work")[0].solution

    assert solution(row) == "it is 3"
    assert solution(row | verdicts) == "it is 2"
    wrong = {"correctness_math_verify": [False] * 3}
    assert solution(row | wrong) == "" == solution(row | {"work": None})
    with pytest.raises(ValueError, match=r"'work' has 1 attempts and a column"):
        solution(row | verdicts | {"work": ["it is 2"]})
    with pytest.raises(ValueError, match=r"task\.solution_column\) is 7: it must be"):
        solution(row | {"work": 7})


def test_a_tier_is_a_whole_number(tmp_path):
    row = {"problem": "1+1?", "gold": "2", "level": 3}
    assert read(tmp_path, row, tier_column="level")[0].tier == 3
    assert read(tmp_path, row)[0].tier == 0
    message = (
        r"row 0 \(from 0\): column 'level' \(config\.task\.tier_column\) is 'hard'"
    )
    with pytest.raises(ValueError, match=message):
        read(tmp_path, row | {"level": "hard"}, tier_column="level")


def test_missing_column(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'reasons'.*'work'"):
        read(tmp_path, *ROWS, solution_column="reasons")


def test_held_out_rows_are_disjoint_and_fixed(tmp_path):
    path = write(tmp_path / "train.jsonl", ROWS)
    task = load_task(config(path, validation_rows=5), RewardConfig())
    again = load_task(config(path, validation_rows=5), RewardConfig())
    more = load_task(config(path, validation_rows=8), RewardConfig())
    trained = {example.id for example in task.train}
    held_out = {example.id for example in task.validation}
    assert (len(trained), len(held_out)) == (15, 5)
    assert trained | held_out == set(range(20))
    assert held_out != set(range(15, 20))  # not simply the end of the file
    assert (task.train, task.validation) == (again.train, again.validation)
    assert held_out < {example.id for example in more.validation}
    assert task.test == []


def test_repeated_question_is_not_trained_on_when_held_out(tmp_path):
    path = write(tmp_path / "train.jsonl", ROWS + ROWS)
    task = load_task(config(path, validation_rows=10), RewardConfig())
    held_out = {example.question for example in task.validation}
    assert len(task.validation) == 10
    assert not held_out & {example.question for example in task.train}


def test_files_of_their_own(tmp_path):
    files = {
        "validation_path": write(tmp_path / "validation.jsonl", ROWS[10:13]),
        "test_path": write(tmp_path / "test.jsonl", ROWS[13:15]),
    }
    path = write(tmp_path / "train.jsonl", ROWS[:10])
    task = load_task(config(path, **files), RewardConfig())
    assert [len(task.train), len(task.validation), len(task.test)] == [10, 3, 2]
    assert [example.id for example in task.test] == [0, 1]
    assert task.test[1].question == "14+14?"


@pytest.mark.parametrize("count", [20, 99])
def test_too_many_rows_held_out(tmp_path, count):
    path = write(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(ValueError, match=f"validation_rows is {count} .* 20 rows"):
        load_task(config(path, validation_rows=count), RewardConfig())


def test_every_row_asks_a_held_out_question(tmp_path):
    path = write(tmp_path / "train.jsonl", ROWS[:1] * 4)
    with pytest.raises(ValueError, match="every row of .* asks a question"):
        load_task(config(path, validation_rows=1), RewardConfig())


def test_demonstrations_are_the_solutions(tmp_path):
    path = write(tmp_path / "train.jsonl", ROWS)
    task = load_task(config(path, solution_column="work"), RewardConfig())
    rng = np.random.default_rng(0)
    assert task.demonstrate(task.train[:2], rng) == ["it is 0", "it is 2"]
    without = load_task(config(path), RewardConfig())
    with pytest.raises(ValueError, match=r"example 0 .*config\.task\.solution_column"):
        without.demonstrate(without.train[:2], rng)


def test_rewards(tmp_path):
    path = write(tmp_path / "train.jsonl", ROWS)
    task = load_task(config(path), RewardConfig(workers=1, check_seconds=30.0))
    texts = [r"\boxed{4}", r"\boxed{5}", "<think>a</think><answer>4</answer>"]
    rows = [Completion("2+2?", text, "4", 9, True, 0, {}) for text in texts]
    try:
        assert list(task.rewards["accuracy"](rows)) == [1.0, 0.0, 1.0]
        counts = dict(task.take_counts())
        assert counts == {"reward/timeouts": 0, "reward/errors": 0}
    finally:
        task.close()
    assert list(task.rewards["format"](rows)) == [1.0, 1.0, 0.0]
    assert list(task.rewards["boxed_format"](rows)) == [1.0, 1.0, 0.0]
    assert list(task.rewards["think_answer_format"](rows)) == [0.0, 0.0, 1.0]
    task.close()
