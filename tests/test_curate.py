"""The curation door, run as a user runs it."""

import functools
import json

import pytest

from tests import helpers

pytestmark = pytest.mark.system


run = functools.partial(helpers.run_door, "curate")


def test_one_line(tmp_path):
    rows = [{"problem": f"What is {i}+1?", "answer": f"{i + 1}"} for i in range(9)]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    done = run(f"--input={raw}=sums", f"--output={tmp_path}/out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/out/data.jsonl"
    data = (tmp_path / "out" / "data.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in data] == ["sums"] * 9
    card = (tmp_path / "out" / "card.md").read_text()
    assert "9 of 10 problems are left." in card
    assert f"python -m grpo_jax.curate --input={raw}=sums" in card

    done = run(f"--input={raw}", f"--output={tmp_path}/out", "--question_column=x")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "--question_column to one of ['answer', 'problem']" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_pass_rates(tmp_path):
    rows = [{"question": f"{i}+1-{i}?", "answer": 1} for i in range(9)]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [f"--input={raw}", f"--output={tmp_path}/out", "--near_duplicate=0"]
    flags.append("--config=configs/quickstart.py")
    done = run(*flags)
    assert done.stderr.endswith("a policy to sample: set --pass_rate_samples\n")
    flags += ["--pass_rate_samples=2", "--config.rollout.max_completion_tokens=4"]
    flags.append("--config.warm_start.steps=0")
    done = run(*flags, "--config.task.name=math")
    assert (done.returncode, done.stderr) == (0, "")
    data = (tmp_path / "out" / "data.jsonl").read_text().splitlines()
    assert [json.loads(line)["samples"] for line in data] == [2] * 9
    kept = tmp_path / "out" / "stages" / "pass_rates.jsonl"
    before = kept.read_bytes()
    assert len(before.splitlines()) == 9
    bands = '{"good": 0.75, "bad": 0}'
    done = run(*flags, f"--difficulty_bands={bands}")
    assert (done.returncode, done.stderr) == (0, "")
    data = (tmp_path / "out" / "data.jsonl").read_text().splitlines()
    assert {json.loads(line)["difficulty"] for line in data} <= {"good", "bad"}
    assert kept.read_bytes() == before
    assert "## Pass rates" in (tmp_path / "out" / "card.md").read_text()
