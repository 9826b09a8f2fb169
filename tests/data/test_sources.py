"""Rows come back as written, and every bad file is named."""

import json
import pathlib

import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from grpo_jax.data import sources

ROWS = [
    {"question": "1+1?", "answer": "2"},
    {"question": "2²?\u2028", "answer": "4", "level": 3},
]


def write_lines(path: pathlib.Path, rows=ROWS) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_parquet(path: pathlib.Path, rows=ROWS[:1]) -> str:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def test_json_lines_keep_order_and_every_column(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "\ufeff"
        + json.dumps(ROWS[0])
        + "\n\n"
        + json.dumps(ROWS[1], ensure_ascii=False)
    )
    assert sources.read_rows(str(path), ["question", "answer"]) == ROWS


def test_parquet(tmp_path):
    rows = [{"question": "1+1?", "answer": 2, "tags": ["a", "b"]}]
    location = write_parquet(tmp_path / "a.parquet", rows)
    assert sources.read_rows(location, ["answer"]) == rows


@pytest.mark.parametrize("pattern", ["", "/*", "/[ab].*", "/../*/?.*"])
def test_directory_and_glob_read_files_in_the_order_of_their_names(tmp_path, pattern):
    folder = tmp_path / "set"
    folder.mkdir()
    write_lines(folder / "b.jsonl", ROWS[1:])
    write_parquet(folder / "a.parquet")
    if not pattern:
        (folder / "README.md").write_text("not data")
    rows = sources.read_rows(f"{folder}{pattern}")
    assert [row["question"] for row in rows] == [row["question"] for row in ROWS]


def test_relative_glob(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert sources.read_rows("*.jsonl") == ROWS
    assert sources.read_rows("a.jsonl") == ROWS


def test_missing_file_names_the_nearest(tmp_path):
    write_lines(tmp_path / "train.jsonl")
    write_lines(tmp_path / "zzz.jsonl")
    with pytest.raises(FileNotFoundError, match=r"trian\.jsonl.*'train\.jsonl'"):
        sources.read_rows(str(tmp_path / "trian.jsonl"))


def test_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match="no directory .*nowhere either"):
        sources.read_rows(str(tmp_path / "nowhere" / "train.jsonl"))


@pytest.mark.parametrize("pattern", ["", "/*.jsonl"])
def test_nothing_matches(tmp_path, pattern):
    with pytest.raises(FileNotFoundError, match="matches no file"):
        sources.read_rows(f"{tmp_path}{pattern}")


@pytest.mark.parametrize("bad", [b'{"question": ', b'{"question": "\xff"}', b"{,}"])
def test_malformed_line_is_named(tmp_path, bad):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(ROWS[0]).encode() + b"\n\n" + bad + b"\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:3 is not JSON .*one object a line"):
        sources.read_rows(str(path))


def test_line_that_is_no_object_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "q"}\n["q", "a"]\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2 holds a list, \['q', 'a'\]"):
        sources.read_rows(str(path))


@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_missing_column_lists_those_found(tmp_path, write):
    location = write(tmp_path / ("a.jsonl" if write is write_lines else "a.parquet"))
    message = r"no column 'problem'.*\['answer', 'question'\].*config\.task"
    with pytest.raises(ValueError, match=message):
        sources.read_rows(location, ["question", "problem"])


def test_column_missing_in_one_line_names_the_line(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [*ROWS, {"question": "3?"}])
    with pytest.raises(ValueError, match=r"a\.jsonl:3 has no column 'answer'"):
        sources.read_rows(path, ["question", "answer"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_empty_dataset(tmp_path, name):
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_text("\n\n")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"question": []}), path)
    with pytest.raises(ValueError, match="holds no row"):
        sources.read_rows(str(path), ["question"] if "parquet" in name else [])


def test_wrong_suffix(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\n")
    with pytest.raises(ValueError, match=r"a\.csv ends in '\.csv': convert it"):
        sources.read_rows(str(tmp_path / "a.csv"))


def test_file_that_is_not_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"a\.parquet is not a Parquet file"):
        sources.read_rows(str(tmp_path / "a.parquet"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one dataset, whose file names the test chooses."""
    names: list[str] = []

    def listed(dataset: str, repo_type: str) -> list[str]:
        assert (dataset, repo_type) == ("org/set", "dataset")
        return names

    def download(dataset: str, name: str, repo_type: str) -> str:
        assert dataset == "org/set"
        assert repo_type == "dataset"
        assert name in names
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"question": name, "answer": "1"}]
        return (write_parquet if path.suffix == ".parquet" else write_lines)(path, rows)

    monkeypatch.setattr(huggingface_hub, "list_repo_files", listed)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return names


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (
            "hub:org/set:train",
            ["data/train-0-of-2.parquet", "data/train-1-of-2.parquet"],
        ),
        ("hub:org/set:validation", ["validation.jsonl"]),
        ("hub:org/set:main:test", ["main/test-0-of-1.parquet"]),
        ("hub:org/set:other:dev", ["other/dev/0000.parquet"]),
    ],
)
def test_hub_layouts(hub, location, expected):
    hub += [
        "README.md",
        "data/train-1-of-2.parquet",
        "data/train-0-of-2.parquet",
        "data/training-0-of-1.parquet",
        "validation.jsonl",
        "main/test-0-of-1.parquet",
        "socratic/test-0-of-1.parquet",
        "other/dev/0000.parquet",
    ]
    rows = sources.read_rows(location, ["question"])
    assert [row["question"] for row in rows] == expected


def test_hub_split_of_two_configs_is_ambiguous(hub):
    hub += ["main/train-0.parquet", "socratic/train-0.parquet"]
    with pytest.raises(ValueError, match="ambiguous.*hub:org/set:main:train"):
        sources.read_rows("hub:org/set:train")


def test_hub_split_that_is_not_there_lists_the_files(hub):
    hub += ["data/train-0.parquet", "README.md"]
    with pytest.raises(ValueError, match=r"org/set holds .*data/train-0\.parquet"):
        sources.read_rows("hub:org/set:test")


@pytest.mark.parametrize("location", ["hub:org/set", "hub:org/set:", "hub:a:b:c:d"])
def test_hub_location_must_name_a_split(location):
    with pytest.raises(ValueError, match=r"must read hub:dataset_id\[:config\]:split"):
        sources.read_rows(location)
