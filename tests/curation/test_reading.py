"""Rows of all kinds of files, and every bad one listed."""

import pyarrow
import pyarrow.parquet
import pytest

from grpo_jax.curation import reading
from grpo_jax.curation.reading import Columns, Source, parse_source
from tests.curation.helpers import reasons, write_lines


def read(path, **columns: str):
    return reading.read_problems([parse_source(str(path))], Columns(**columns))


def test_every_bad_row_is_listed(tmp_path):
    rows = [
        {"question": "1+1?", "answer": 2.0, "level": 4.0},
        "{broken",
        "[1, 2]",
        "",
        {"question": " ", "answer": "2"},
        {"question": "1+1?"},
        {"question": "1+1?", "answer": None},
        {"question": ["1+1?"], "answer": "2"},
        {"question": "1+1?", "answer": True},
        r'{"question": "\ud800", "answer": "2"}',
        {"question": "Что?", "answer": "reasoning #### 1,234"},
    ]
    path = write_lines(tmp_path / "raw.jsonl", rows)
    problems, verdicts = read(path, difficulty="level")
    expected = ["", "not_json", "not_json", "no_question", *["no_answer"] * 2]
    assert reasons(verdicts) == [*expected, *["not_text"] * 3, ""]
    assert [problem.where for problem in problems[:4]] == [
        f"{path}:{line}" for line in (1, 2, 3, 5)
    ]
    assert (problems[0].answer, problems[0].difficulty) == ("2", "4")
    assert (problems[-1].question, problems[-1].answer) == ("Что?", "1234")
    assert verdicts[7].evidence == "answer: True"


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_bytes(b'{"question": "\xff"}\n{"question": "q", "answer": "1"}\n')
    assert reasons(read(path)[1]) == ["not_json", ""]


def test_usual_names_and_boxes(tmp_path):
    row = {"problem": "1+1?", "solution": r"It is \boxed{2}."}
    path = write_lines(tmp_path / "raw.jsonl", [row, {"problem": "1+2?"}])
    problems, verdicts = read(path)
    assert (problems[0].question, problems[0].answer) == ("1+1?", "2")
    assert problems[0].solution == row["solution"]
    assert reasons(verdicts) == ["", "no_answer"]


def test_parquet_and_labels(tmp_path):
    path = tmp_path / "raw.parquet"
    table = pyarrow.Table.from_pylist([{"q": "1+1?", "a": 2}])
    pyarrow.parquet.write_table(table, path)
    source = parse_source(f"{path}=mine")
    assert source == Source(str(path), "mine")
    columns = Columns(question="q", reference="a")
    (problem,), verdicts = reading.read_problems([source], columns)
    assert (problem.source, problem.answer, problem.where) == ("mine", "2", f"{path}:1")
    assert verdicts == [None]


def test_a_file_whose_name_looks_like_a_label(tmp_path):
    path = write_lines(tmp_path / "a=b.jsonl")
    assert parse_source(str(path)) == Source(str(path), "a=b")
    assert parse_source(f"{path}=c") == Source(str(path), "c")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"question": "q"},
            r"no column 'q': set --question_column to one of \['a', 'b'",
        ),
        ({}, r"no column 'question' or 'problem' or 'prompt': set --question_column"),
        ({"question": "a"}, "no column 'answer' or .*: set --reference_column"),
        ({"question": "a", "reference": "b", "difficulty": "c"}, "--difficulty_column"),
        ({"question": "a", "reference": "b", "solution": "c"}, "--solution_column"),
    ],
)
def test_missing_columns(tmp_path, columns, message):
    path = write_lines(tmp_path / "raw.jsonl", [{"a": "1", "b": "2"}])
    with pytest.raises(ValueError, match=message):
        read(path, **columns)


def test_nothing_to_read(tmp_path):
    with pytest.raises(ValueError, match="no row of .* can be read: it is empty"):
        read(write_lines(tmp_path / "raw.jsonl", [""]))
    with pytest.raises(ValueError, match="no row of .* can be read: .* is not JSON"):
        read(write_lines(tmp_path / "raw.jsonl", ["{"]))
    with pytest.raises(
        FileNotFoundError, match="the nearest name there is 'raw.jsonl'"
    ):
        read(tmp_path / "rav.jsonl")


def test_benchmarks(tmp_path):
    def benchmarks(rows, *names):
        path = write_lines(tmp_path / "b.jsonl", rows)
        return reading.read_benchmarks([parse_source(str(path))], *names)

    assert benchmarks([{"problem": "q"}], "")[0].question == "q"
    assert benchmarks([{"mine": "q", "problem": "p"}], "", "mine")[0].question == "q"
    with pytest.raises(ValueError, match="--benchmark_question_column"):
        benchmarks([{"problem": "q"}], "mine")
    with pytest.raises(ValueError, match="must say what the benchmark asks"):
        benchmarks([{"problem": "q"}, {"problem": ""}], "")
    with pytest.raises(ValueError, match="is not JSON"):
        benchmarks([{"problem": "q"}, "{"], "")
