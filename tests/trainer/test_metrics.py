"""metrics.jsonl, TensorBoard events and the timer."""

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from grpo_jax.trainer import metrics


def lines(workdir: Path, name: str = "metrics") -> list[dict]:
    text = (workdir / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def events(workdir: Path) -> list:
    """Reads every event of every file, in the order TensorBoard would."""
    found = []
    for path in sorted((workdir / "tensorboard").glob("events*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def write_steps(workdir: Path, steps, resume_step: int, value: float = 0.5):
    with metrics.MetricsWriter(workdir, resume_step=resume_step) as writer:
        for step in steps:
            writer.write(step, {"reward/mean": value})


def test_each_step_is_on_disk_before_the_next(tmp_path):
    writer = metrics.MetricsWriter(tmp_path / "new", resume_step=0)
    writer.write(1, {"reward/mean": 0.25, "rollout/completion_tokens_max": 9})
    assert lines(tmp_path / "new") == [
        {"step": 1, "reward/mean": 0.25, "rollout/completion_tokens_max": 9}
    ]
    scalars = {
        v.tag: v.simple_value for v in events(tmp_path / "new")[-1].summary.value
    }
    assert scalars == {"reward/mean": 0.25, "rollout/completion_tokens_max": 9.0}
    writer.close()


def test_non_finite_becomes_null_and_scalars_of_arrays_are_taken(tmp_path):
    with metrics.MetricsWriter(tmp_path, resume_step=0) as writer:
        writer.write(
            1,
            {
                "loss/total": math.nan,
                "policy/ratio_max": np.float32("inf"),
                "loss/kl": np.float32(0.5),
                "rollout/tokens": np.int64(7),
                "reward/format": None,
            },
        )
    assert lines(tmp_path) == [
        {
            "step": 1,
            "loss/total": None,
            "policy/ratio_max": None,
            "loss/kl": 0.5,
            "rollout/tokens": 7,
            "reward/format": None,
        }
    ]
    tags = [value.tag for value in events(tmp_path)[-1].summary.value]
    assert tags == ["loss/kl", "rollout/tokens"]


def test_resume_says_each_step_once(tmp_path):
    write_steps(tmp_path, range(1, 8), resume_step=0, value=0.1)
    write_steps(tmp_path, range(5, 7), resume_step=4, value=0.2)
    rows = lines(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["reward/mean"] for row in rows] == [0.1] * 4 + [0.2] * 2
    starts = [e.step for e in events(tmp_path) if e.HasField("session_log")]
    assert starts[-1] == 5
    assert not list(tmp_path.glob("*.partial"))


def test_a_torn_last_line_is_dropped(tmp_path):
    write_steps(tmp_path, range(1, 4), resume_step=0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "reward/me')
    write_steps(tmp_path, [4], resume_step=4)
    assert [row["step"] for row in lines(tmp_path)] == [1, 2, 3, 4]


def test_a_whole_last_line_without_its_newline_counts_as_torn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    write_steps(tmp_path, [2], resume_step=2)
    assert [row["step"] for row in lines(tmp_path)] == [1, 2]


def test_a_fresh_run_keeps_nothing_of_an_older_one(tmp_path):
    write_steps(tmp_path, range(4), resume_step=0, value=0.1)
    write_steps(tmp_path, range(2), resume_step=0, value=0.2)
    assert [row["reward/mean"] for row in lines(tmp_path)] == [0.2, 0.2]


def test_a_step_written_twice_is_an_error(tmp_path):
    write_steps(tmp_path, [1, 2], resume_step=0)
    writer = metrics.MetricsWriter(tmp_path, resume_step=2)
    with writer, pytest.raises(ValueError, match="step is 2"):
        writer.write(2, {})


def test_warm_start_has_files_of_its_own(tmp_path):
    with metrics.MetricsWriter(tmp_path, resume_step=0, name="warm_start") as writer:
        writer.write(1, {"loss": 2.0})
    assert lines(tmp_path, "warm_start") == [{"step": 1, "loss": 2.0}]
    assert list((tmp_path / "tensorboard" / "warm_start").glob("events*"))


def test_other_hosts_write_nothing(tmp_path):
    with metrics.MetricsWriter(tmp_path, resume_step=0, enabled=False) as writer:
        writer.write(1, {"loss": 2.0})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_path(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    writer = metrics.MetricsWriter(tmp_path, resume_step=0)
    writer.close()
    writer._lines = open("/dev/full", "ab", buffering=0)  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left.*metrics\.jsonl") as caught:
        writer.write(1, {"loss": 2.0})
    assert caught.value.filename == str(tmp_path / "metrics.jsonl")
    writer._lines.close()


def test_a_workdir_that_is_a_file_names_the_path(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match="set --workdir.*run"):
        metrics.MetricsWriter(tmp_path / "run", resume_step=0)


def test_timer_sums_phases_and_starts_again_each_step():
    now = iter([0.0, 1.0, 3.0, 4.0, 4.5, 10.0, 11.0, 12.0, 13.0])
    timer = metrics.StepTimer({"rollout": 100.0}, clock=lambda: next(now))
    with timer("rollout"):
        pass
    with timer("rollout"):
        pass
    assert timer.metrics() == {"time/rollout_seconds": 2.5, "time/step_seconds": 10.0}
    with pytest.raises(KeyError), timer("update"):
        raise KeyError
    assert timer.metrics() == {"time/update_seconds": 1.0, "time/step_seconds": 3.0}
    assert timer.totals == {"rollout": 102.5, "update": 1.0}
