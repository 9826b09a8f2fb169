"""The report door, run as a user runs it."""

import functools

import pytest

from tests import helpers

pytestmark = pytest.mark.system


run = functools.partial(helpers.run_door, "report")


@pytest.fixture
def workdir(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    return path


def test_the_page_is_written_into_the_workdir(workdir):
    done = run(f"--workdir={workdir}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(workdir / "report.html")
    assert "Reward" in (workdir / "report.html").read_text()


def test_a_comparison_leaves_the_first_report_alone(workdir):
    done = run(f"--workdir={workdir}", f"--workdir={workdir}")
    assert done.stdout.strip() == str(workdir / "comparison.html")
    assert not (workdir / "report.html").exists()


def test_output(workdir, tmp_path):
    done = run(f"--workdir={workdir}", f"--output={tmp_path / 'new' / 'x.html'}")
    assert done.returncode == 0
    assert (tmp_path / "new" / "x.html").exists()


def test_errors_are_one_line(tmp_path):
    done = run(f"--workdir={tmp_path / 'absent'}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: workdir")
    assert "does not exist" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run(f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert "has no metrics" in done.stderr
    assert "--workdir is missing" in run().stdout + run().stderr
