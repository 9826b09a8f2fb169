"""The door that evaluates benchmarks, run as a user runs it."""

import functools
import json

import pytest

from tests import helpers

pytestmark = pytest.mark.system

RANDOM = ("--config=configs/quickstart.py", "--config.warm_start.steps=0")


run = functools.partial(helpers.run_door, "evaluate", *RANDOM)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(f'{{"problem": "{i}+1?", "answer": "{i + 1}"}}\n' for i in range(3))
    )
    return path


def test_two_benchmarks(tmp_path, rows):
    arguments = (
        f"--workdir={tmp_path / 'run'}",
        f"--benchmarks=aime24={rows}",
        f"--benchmarks=own={rows}",
        "--samples=2",
        "--max_completion_tokens=8",
        f"--train_data={rows}",
    )
    first = run(*arguments)
    assert (first.returncode, first.stderr) == (0, "")
    folder = tmp_path / "run" / "evaluation"
    names = [f"{name}_000000.json" for name in ("aime24", "own")]
    every = sorted([*names, *(f"{name}l" for name in names)])
    assert sorted(path.name for path in folder.iterdir()) == every
    assert first.stdout.count("_000000.jsonl: 3 of 3 problems") == 2
    assert first.stdout.endswith(f"{folder / names[1]}\n")
    result = json.loads((folder / names[0]).read_text())
    assert (result["split"], result["problems"], result["samples"]) == ("aime24", 3, 2)
    assert result["contamination"]["problems"] == [0, 1, 2]
    assert result["contamination"]["clean"]["mean"] is None

    files = {path: path.read_text() for path in folder.iterdir()}
    again = run(*arguments)
    assert "own_000000.jsonl goes on with 6 completions that are known" in again.stdout
    assert {path: path.read_text() for path in folder.iterdir()} == files

    other = run(*arguments, "--seed=1")
    assert "own_000000.jsonl begins anew: seed was 0 and is 1" in other.stdout
    changed = folder / "own_000000.jsonl"
    assert changed.read_text() != files[changed]

    done = helpers.run_door("compare", folder / names[0], folder / names[1])
    assert done.returncode == 0 and done.stdout.startswith("benchmark")


def test_mistakes_are_one_line_and_write_nothing(tmp_path, rows):
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "a"}\n')
    for argument, message in (
        ("--benchmarks=aime26", "there is no benchmark 'aime26'; use one of aime24"),
        (f"--train_data={other}", "has no column 'question'"),
        ("--top_p=2", "top_p is 2.0: use a value in (0, 1]"),
    ):
        done = run(f"--workdir={tmp_path / 'run'}", argument)
        assert done.returncode == 1 and message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
