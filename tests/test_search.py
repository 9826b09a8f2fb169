"""The search door, run as a user runs it."""

import functools

import pytest

from tests import helpers
from tests.retrieval.helpers import write_corpus

pytestmark = pytest.mark.system

run = functools.partial(helpers.run_door, "search")


def test_an_index_is_made_and_searched(tmp_path):
    corpus = write_corpus(tmp_path / "c.jsonl")
    done = run(f"--corpus={corpus}", "--query=mosque", "--query=zeppelin", "--top_k=1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"{corpus}.bm25: made of 4 documents, 0 of them without a title; left out: "
        "0 repeated, 0 empty"
    )
    assert lines[1:3] == ["", "mosque"]
    assert lines[3].startswith("1. Laleli Mosque [a] ")
    assert lines[4] == "   A mosque in Istanbul, built for Mustafa III."
    assert lines[5:] == ["", "zeppelin", "nothing"]
    done = run(f"--index={corpus}.bm25", "--build_only")
    assert done.stdout.startswith(f"{corpus}.bm25: has 4 documents")


def test_errors_are_one_line(tmp_path):
    corpus = write_corpus(tmp_path / "c.jsonl")
    for arguments, message in (
        ((), "--corpus is missing"),
        ((f"--corpus={tmp_path}/d.jsonl",), "d.jsonl does not exist"),
        (("--url=http://127.0.0.1:9/x", "--query=a"), "does not answer as it should"),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert run(f"--corpus={corpus}", "--build_only").returncode == 0
    done = run(f"--corpus={corpus}", "--build_only", "--k1=2")
    assert "k1 = 1.5 and now it is 2.0" in done.stderr
    assert run(f"--corpus={corpus}", "--build_only", "--k1=2", "--rebuild").stdout
