"""Two processes, each with two devices, write the same episodes; one of them asks."""

import json
import socket
import subprocess
import sys

import pytest

from tests import helpers
from tests.rollout import test_episodes

pytestmark = pytest.mark.system


def run_both(*flags):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.rollout.two_processes", address, n, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in "01"
    ]
    return [(each.communicate(timeout=300), each.returncode) for each in both]


def test_two_processes_write_what_one_does(tiny):
    rows, turns, _ = test_episodes.converse(tiny, max_calls=3)
    expected = [[turn.text for turn in of_row] for of_row in turns]
    said = []
    for (out, errors), status in run_both():
        assert status == 0, errors
        said.append(json.loads(out.splitlines()[-1]))
    (_, asked, *first), (_, not_asked, *second) = said
    assert asked > 0 and not_asked == 0
    assert first == second == [expected, helpers.texts_of(rows)]


@pytest.mark.slow
def test_a_tool_that_raises_ends_both():
    for (_, errors), status in run_both("fails"):
        assert status != 0
        assert "tool is broken" in errors or "failed in the first process" in errors
