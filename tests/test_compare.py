"""The door that compares, run as a user runs it."""

import functools
import json

import pytest

from tests import helpers
from tests.trainer.test_comparison import BETTER, RATES, write

pytestmark = pytest.mark.system


run = functools.partial(helpers.run_door, "compare")


def test_two_files(tmp_path):
    a, b = write(tmp_path / "a", RATES), write(tmp_path / "b", BETTER)
    table, numbers = tmp_path / "new" / "x.md", tmp_path / "new" / "x.json"
    done = run(a, b, f"--markdown={table}", f"--json={numbers}", "--confidence=0.9")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("benchmark  n  samples")
    assert "+25.0" in done.stdout and "90 % interval" in done.stdout
    assert table.read_text().startswith("| benchmark | n |")
    (found,) = json.loads(numbers.read_text())["comparisons"]
    assert found["difference"]["mean"] == 0.25 and found["confidence"] == 0.9


def test_mistakes_are_one_line(tmp_path):
    a, b = write(tmp_path / "a", RATES), write(tmp_path / "b", RATES, first=9)
    for arguments, message in (
        ([a, b], "0 are in both"),
        ([a], "error: 1 arguments were given"),
        ([a, a, "--comon"], "Unknown command line flag 'comon'"),
        ([a, tmp_path / "c"], "c does not exist: give a workdir"),
    ):
        done = run(*arguments)
        assert done.returncode == 1 and message in done.stderr
        assert "Traceback" not in done.stderr
    assert "write A B, and flags as --flag=value" in run(a).stderr
