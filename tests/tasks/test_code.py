"""Rows with tests of three forms become examples; tests that test nothing do not."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.rewards.base import Completion
from grpo_jax.tasks.code import read_examples
from grpo_jax.tasks.load import load_task

CASES = {
    "language": "python",
    "test_cases": [
        {"fn_name": None, "type": "stdin_stdout", "input": "1\n", "output": "2\n"},
        {"fn_name": None, "type": "stdin_stdout", "input": "4\n", "output": "8\n"},
    ],
}
PAIRS = [{"input": "1\n", "output": "2\n"}, {"input": "4\n", "output": "8\n"}]
CHECK = "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n"


def config(path: str, **changes) -> TaskConfig:
    return TaskConfig(name="code", train_path=path, reference_column="tests", **changes)


def write(tmp_path, *rows) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": "q"} | row) + "\n" for row in rows))
    return str(path)


def canonical(tmp_path, **row):
    path = write(tmp_path, row)
    (example,) = read_examples(path, config(path))
    return json.loads(example.reference)


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_pairs_of_input_and_output(tmp_path, form):
    assert canonical(tmp_path, tests=form(CASES)) == PAIRS


def test_pairs_from_parquet(tmp_path):
    path = str(tmp_path / "rows.parquet")
    table = pyarrow.Table.from_pylist([{"question": "q", "tests": CASES}])
    pyarrow.parquet.write_table(table, path)
    assert json.loads(read_examples(path, config(path))[0].reference) == PAIRS


@pytest.mark.parametrize("form", [list, json.dumps])
def test_a_list_of_assert_lines(tmp_path, form):
    lines = ["assert f(1) == 2", "assert f(2) == 4"]
    expected = [{"code": f"\n{line}"} for line in lines]
    assert canonical(tmp_path, tests=form(lines)) == expected
    tests = canonical(tmp_path, tests=form(lines), test_setup_code="one = 1")
    assert tests[1] == {"code": "one = 1\nassert f(2) == 4"}


def test_source_with_a_check_is_called_with_the_entry_point(tmp_path):
    (test,) = canonical(tmp_path, tests=CHECK, entry_point="f")
    assert test["code"].endswith("== 2\n\ncheck(f)\n")
    source = "assert f('\\d') == 2\nassert f(2) == 4"
    assert canonical(tmp_path, tests=source, entry_point="f") == [{"code": source}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"tests": None},
            "is None: it holds no test: it must be .*; or remove the row",
        ),
        ({"tests": ""}, "is '': it holds no test"),
        ({"tests": []}, "it holds no test"),
        ({"tests": {"test_cases": []}}, "it holds no test"),
        ({"tests": 18}, "is 18: it must be {.*a list of assert lines, or Python"),
        ({"tests": "18"}, "is '18': nothing is asserted"),
        ({"tests": "It returns 18."}, r"it is not Python \(invalid syntax"),
        ({"tests": ["assert f(1) == 2", "f(2)"]}, "nothing is asserted"),
        ({"tests": ["assert f(1 == 2"]}, "it is not Python"),
        ({"tests": ["assert 1", 2]}, "it must be "),
        ({"tests": {"cases": []}}, "it must be "),
        ({"tests": CASES | {"language": "c"}}, "its language must be 'python'"),
        ({"tests": {"test_cases": [{"input": "1"}]}}, "its test case {'input': '1'} "),
        ({"tests": {"test_cases": [{"input": "", "output": 1}]}}, "must have text as"),
        (
            {"tests": {"test_cases": [CASES["test_cases"][0] | {"type": "call"}]}},
            "the type 'stdin_stdout' if it has one",
        ),
        ({"tests": CHECK}, "in a column 'entry_point', which is None now"),
        ({"tests": CHECK, "entry_point": "f("}, r"'entry_point', which is 'f\(' now"),
    ],
)
def test_bad_tests_name_row_column_value_and_what_to_do(tmp_path, row, message):
    path = write(tmp_path, {"tests": CASES}, row)
    place = r"rows\.jsonl, row 1 \(from 0\): column 'tests' .*reference_column\) is "
    with pytest.raises(ValueError, match=f"{place}.*") as caught:
        read_examples(path, config(path))
    caught.match(message)


def test_a_missing_column_lists_the_columns(tmp_path):
    path = write(tmp_path, {"asserts": []})
    with pytest.raises(
        ValueError, match=r"no column 'tests'.*\['asserts', 'question'\]"
    ):
        read_examples(path, config(path))


def test_a_code_task_reads_a_file():
    with pytest.raises(ValueError, match=r"train_path is empty: task 'code' reads a"):
        TaskConfig(name="code").validate("config.task")


def test_the_task(tmp_path):
    rows = [
        {"question": f"q{i}", "tests": CASES, "work": f"w{i}", "level": i}
        for i in range(6)
    ]
    path = write(tmp_path, *rows)
    section = config(path, validation_rows=2, solution_column="work", test_path=path)
    section.tier_column = "level"
    task = load_task(section, RewardConfig(workers=1, check_seconds=20.0))
    assert [len(task.train), len(task.validation), len(task.test)] == [4, 2, 6]
    assert [example.tier for example in task.test] == list(range(6))
    assert task.test[3].solution == "w3"
    reference = task.train[0].reference
    sources = ["print(2 * int(input()))", "input(); print(2)", "print(0)"]
    rows = [
        Completion(
            "q", f"<think>a</think>```python\n{each}\n```", reference, 1, True, 0, {}
        )
        for each in sources
    ]
    try:
        assert list(task.rewards["accuracy"](rows)) == [1.0, 0.0, 0.0]
        assert list(task.rewards["tests_passed"](rows)) == [1.0, 0.5, 0.0]
        assert dict(task.take_counts()) == {"reward/timeouts": 0, "reward/errors": 0}
    finally:
        task.close()
    assert list(task.rewards["code_format"](rows)) == [1.0, 1.0, 1.0]
    assert list(task.rewards["format"](rows)) == [1.0, 1.0, 1.0]
    assert list(task.rewards["think_answer_format"](rows)) == [0.0, 0.0, 0.0]
