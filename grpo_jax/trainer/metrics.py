"""Where a run's numbers go: one JSON line a step, TensorBoard events, seconds by phase.

The JSONL file is the record; TensorBoard is a copy. After a resume both say each step
once, although the steps between the checkpoint and the crash were computed twice.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

# Classes made at import time, which no type checker sees.
_Event: Any = getattr(event_pb2, "Event")  # noqa: B009
_SessionLog: Any = getattr(event_pb2, "SessionLog")  # noqa: B009
_Summary: Any = getattr(summary_pb2, "Summary")  # noqa: B009


class MetricsWriter:
    """Appends the metrics of each step to WORKDIR/NAME.jsonl and to TensorBoard."""

    def __init__(
        self,
        workdir: Path,
        *,
        resume_step: int,
        name: str = "metrics",
        enabled: bool = True,
    ):
        """Opens the files, after dropping what will be computed again.

        Args:
          workdir: the run's directory; made if absent.
          resume_step: the checkpoint's step, counted from 1; later lines are dropped,
            and so is a last line that a crash left unfinished. 0: a fresh run.
          name: "metrics" or "warm_start"; the file's stem. TensorBoard shows the
            latter as a run of its own.
          enabled: False on every host but the first; then nothing is written.

        Raises:
          OSError: the disk is full or refuses, with the path.
        """
        self._enabled = enabled
        if not enabled:
            return
        self._path = Path(workdir) / f"{name}.jsonl"
        events = Path(workdir) / "tensorboard" / ("" if name == "metrics" else name)
        with _naming(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._last_step = _keep_through(self._path, resume_step)
            # Unbuffered: a step that was written survives any crash of the process.
            self._lines = open(self._path, "ab", buffering=0)  # noqa: SIM115
        with _naming(events):
            events.mkdir(parents=True, exist_ok=True)
            self._events = _Events(events, resume_step)

    def write(self, step: int, metrics: Mapping[str, Any]):
        """Writes one step; a non-finite number becomes null.

        Args:
          step: greater than that of every call before.
          metrics: "area/name" to a scalar: Python, NumPy or a fetched JAX array.

        Raises:
          ValueError: `step` was written before.
          OSError: the disk is full or refuses, with the path.
        """
        if not self._enabled:
            return
        if step <= self._last_step:
            raise ValueError(
                f"step is {step}, but step {self._last_step} is in {self._path} "
                "already; merge all metrics of a step into one call"
            )
        values = {key: plain(value) for key, value in metrics.items()}
        line = json.dumps({"step": step, **values}, allow_nan=False) + "\n"
        with _naming(self._path):
            _write_all(self._lines, line.encode())
        with _naming(self._events.folder):
            self._events.write(step, values)
        self._last_step = step

    def close(self):
        """Closes the files; every step is on disk already."""
        if self._enabled:
            self._lines.close()
            self._events.close()

    def __enter__(self):
        return self

    def __exit__(self, *_: object):
        self.close()


class StepTimer:
    """Seconds spent in each phase of a step, and in the whole run.

    JAX returns before the device is done: what a phase computes must be fetched or
    blocked on inside it, or the next phase is charged. A phase within a phase counts
    in both.

    Attributes:
      totals: seconds by phase, over every step so far, for summary.json.
    """

    def __init__(
        self,
        totals: Mapping[str, int | float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Starts the clock; `totals` are those of the run that is resumed."""
        self.totals = dict(totals or {})
        self._clock = clock
        self._phases: dict[str, float] = {}
        self._step_start = clock()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Adds the seconds of the `with` block to `phase`, also if it raises."""
        start = self._clock()
        try:
            yield
        finally:
            seconds = self._clock() - start
            self._phases[phase] = self._phases.get(phase, 0.0) + seconds
            self.totals[phase] = self.totals.get(phase, 0.0) + seconds

    def metrics(self) -> dict[str, float]:
        """Returns time/PHASE_seconds and time/step_seconds since the last call."""
        now = self._clock()
        seconds = {f"time/{phase}_seconds": s for phase, s in self._phases.items()}
        seconds["time/step_seconds"] = now - self._step_start
        self._phases, self._step_start = {}, now
        return seconds


def plain(value: Any) -> Any:
    """Returns a scalar as a JSON value: non-finite numbers become None."""
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Events:
    """A TensorBoard event file, written in the caller's thread.

    tensorboardX's own SummaryWriter hands events to a thread through a bounded queue;
    when the disk is full that thread dies and the next steps wait for it for ever.
    """

    def __init__(self, folder: Path, resume_step: int):
        self.folder = folder
        # File names carry only seconds; the process id keeps a quick restart apart.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        # From here on TensorBoard forgets what an earlier file says of these steps.
        start = _SessionLog(status=_SessionLog.START)
        self._write(_Event(step=resume_step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, Any]):
        scalars = [
            _Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if isinstance(value, int | float)
        ]
        summary = _Summary(value=scalars)
        self._write(_Event(step=step, summary=summary))

    def close(self):
        self._writer.close()

    def _write(self, event: Any):
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()


def _keep_through(path: Path, resume_step: int) -> int:
    """Drops the lines of later steps, atomically; returns the last step kept."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return -1
    kept: dict[int, bytes] = {}
    for line in text.splitlines(keepends=True):
        step = _step_of(line)
        if step is not None and resume_step and step <= resume_step:
            kept[step] = line
    if (remaining := b"".join(kept.values())) != text:
        partial = path.with_name(path.name + ".partial")
        with open(partial, "wb") as file:
            file.write(remaining)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    return max(kept, default=-1)


def _step_of(line: bytes) -> int | None:
    """Returns the step of a whole line, None for a torn one."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if isinstance(step, int) else None


def _write_all(file: Any, data: bytes):
    """Writes all of `data`; an unbuffered file may take a part only."""
    while data:
        data = data[file.write(data) :]


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says which file the disk refused, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"metrics cannot be written ({error.strerror}); free some space or set "
            "--workdir to a directory that can be written",
            str(path),
        ) from error
