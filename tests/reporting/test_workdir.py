"""Reading a workdir, whole or not."""

import json

import pytest

from grpo_jax.reporting import workdir


def test_everything_is_read(make_workdir):
    run = workdir.read_run(make_workdir("first", steps=20))
    assert (run.name, run.ended, run.notes) == ("first", True, [])
    assert [row["step"] for row in run.metrics] == list(range(1, 21))
    assert len(run.warm_start) == 60
    assert run.rollout_steps == list(range(1, 21))
    names = [row["name"] for row in run.evaluations]
    assert names == ["before", "step_000000", "step_000010", "after"]
    rows = workdir.read_rollout(run.path, 20, run.notes)
    assert len(rows) == 12
    assert workdir.read_rollout(run.path, 99, run.notes) == []


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="absent does not exist"):
        workdir.read_run(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"has no metrics.*--workdir"):
        workdir.read_run(tmp_path)


def test_a_run_that_has_only_warmed_up(tmp_path):
    (tmp_path / "warm_start.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    run = workdir.read_run(tmp_path)
    assert (run.metrics, run.config, run.ended) == ([], {}, False)


def test_a_torn_last_line_is_left_out_silently(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "re')
    run = workdir.read_run(tmp_path)
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert run.notes == []


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nxx\n[3]\n{"step": 2}\n')
    (tmp_path / "summary.json").write_text("{")
    run = workdir.read_run(tmp_path)
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert "metrics.jsonl: line 2" in run.notes[0]
    assert "metrics.jsonl: line 3" in run.notes[1]
    assert "summary.json" in run.notes[2]
    assert not run.ended


def test_a_step_written_twice_counts_once(tmp_path):
    rows = [{"step": 1, "x": 1}, {"step": 2, "x": 1}, {"step": 2, "x": 5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    run = workdir.read_run(tmp_path)
    assert workdir.series(run.metrics, "x") == [(1, 1), (2, 5)]


def test_only_finite_numbers_make_a_series(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "x": NaN}\n{"step": 2, "x": null}\n{"step": 3, "x": 0.5}\n'
        '{"step": 4, "x": "high"}\n{"step": 5, "x": true}\n{"step": 6, "x": 1e999}\n'
    )
    run = workdir.read_run(tmp_path)
    assert workdir.series(run.metrics, "x") == [(3, 0.5)]
    assert workdir.metric_keys([run]) == ["x"]


def test_the_summary_stands_for_an_absent_evaluation(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "summary.json").write_text('{"evaluation": {"after": {"step": 1}}}')
    run = workdir.read_run(tmp_path)
    assert run.evaluation("after") == {"name": "after", "step": 1}
    assert run.evaluation("before") is None


def test_names_of_rollout_files(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "rollouts").mkdir()
    for name in ("7", "000012", "step_000030", "notes"):
        (tmp_path / "rollouts" / f"{name}.jsonl").write_text('{"group": 0}\n')
    run = workdir.read_run(tmp_path)
    assert run.rollout_steps == [7, 12, 30]
    assert len(workdir.read_rollout(tmp_path, 12, [])) == 1


def test_flatten():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": {}, "f": [1]}
    assert workdir.flatten(nested) == {"a.b": 1, "a.c.d": 2, "e": {}, "f": [1]}
