"""Worker processes that check completions and can be killed while they do.

Comparing formulas or running code that a policy wrote may hang, crash or eat all
memory. Each check runs in a process of its own session; whatever it does costs that
one check. A worker is a fresh interpreter that talks over two pipes: it imports neither
the caller's script nor an accelerator's libraries. POSIX only.
"""

import collections
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

from grpo_jax.rewards.worker import Check, Load, Outcome, Status

_LOAD_SECONDS = 120.0  # a worker that has not imported its function by then is stuck
_MAX_FAILED_LOADS = 3
_START = (
    "import sys; sys.path[:] = {path!r}; from {package} import worker; worker.serve()"
)
# Workers see no accelerator, whatever the function they run imports.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class VerifierPool:
    """Runs a pure function on many arguments in killable processes.

    Nothing starts before the first `map`; workers then stay until `close`, the end of
    a `with` block, garbage collection or the interpreter's exit.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        check_seconds: float = 5.0,
        batch_seconds: float = 60.0,
        check_memory_mb: int = 2048,
        recycle_checks: int = 1000,
    ):
        """Sets the limits.

        Args:
          workers: processes.
          check_seconds: a check that takes longer is killed and is a TIMEOUT.
          batch_seconds: limit of one `map`; checks not done by then are TIMEOUTs.
          check_memory_mb: address space of a check, beyond what its worker used when
            the function had been imported. Enforced on Linux only.
          recycle_checks: checks after which a worker is replaced.
        """
        limits = {
            "workers": workers,
            "check_seconds": check_seconds,
            "batch_seconds": batch_seconds,
            "check_memory_mb": check_memory_mb,
            "recycle_checks": recycle_checks,
        }
        for name, value in limits.items():
            if not value > 0:
                raise ValueError(f"{name} is {value}: use a value above 0")
        self._size = workers
        self._check_seconds = check_seconds
        self._batch_seconds = batch_seconds
        self._memory_mb = check_memory_mb
        self._recycle_checks = recycle_checks
        self._counts: collections.Counter[Status] = collections.Counter()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._close = weakref.finalize(self, _kill_all, self._workers)

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, *_: object):
        self.close()

    def close(self):
        """Kills the workers. The pool cannot be used afterwards."""
        self._close()

    def take_counts(self) -> dict[str, int]:
        """Returns how many checks ended in each status since the last call."""
        with self._lock:
            counts, self._counts = self._counts, collections.Counter()
        return {status.value: counts[status] for status in Status}

    def map(
        self, function: str | Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Outcome]:
        """Returns the outcome of `function(*each)` for each of `arguments`, in order.

        Args:
          function: "package.module:function", or a function of an importable module.
          arguments: tuples of picklable values.

        Raises:
          ValueError: the function cannot be imported, or the pool is closed.
          RuntimeError: workers die before they can check anything.
        """
        if not self._close.alive:
            raise ValueError("this VerifierPool is closed: make a new one")
        batch = _Batch(_import_path(function), arguments)
        with self._lock:
            try:
                self._run(batch)
            finally:
                # Checks in flight at the deadline, an error or Ctrl-C die here.
                for worker in [each for each in self._workers if each.busy]:
                    self._dismiss(worker)
            message = f"the batch took longer than {self._batch_seconds:g} s"
            late = Outcome(Status.TIMEOUT, message=message)
            outcomes = [batch.outcomes.get(i, late) for i in range(len(arguments))]
            self._counts.update(each.status for each in outcomes)
        return outcomes

    def _run(self, batch: "_Batch"):
        end = time.monotonic() + self._batch_seconds
        while batch.unfinished and time.monotonic() < end:
            while len(self._workers) < min(self._size, batch.unfinished):
                self._workers.append(_Worker())
            for worker in [each for each in self._workers if not each.busy]:
                self._give(worker, batch)
            busy = {each.replies.fileno(): each for each in self._workers if each.busy}
            if not busy:
                continue
            next_deadline = min([end, *(each.deadline for each in busy.values())])
            patience = max(0.0, next_deadline - time.monotonic())
            answered = connection.wait(list(busy), patience)
            for descriptor, worker in busy.items():
                if descriptor in answered:
                    self._take(worker, batch)
                elif time.monotonic() >= worker.deadline:
                    self._time_out(worker, batch)

    def _give(self, worker: "_Worker", batch: "_Batch"):
        """Sends an idle worker the function, if it is new to it, or the next check."""
        try:
            if worker.function != batch.function:
                worker.send(Load(batch.function, self._memory_mb), _LOAD_SECONDS)
            elif batch.waiting:
                index = batch.waiting[0]
                request = Check(batch.arguments[index], self._check_seconds)
                worker.send(request, self._check_seconds, index)
                batch.waiting.popleft()
        except BrokenPipeError:  # it died while it had nothing to do
            end = self._dismiss(worker)
            if worker.function is None:
                batch.count_failed_load(end)

    def _take(self, worker: "_Worker", batch: "_Batch"):
        """Receives a worker's reply, or learns that it died."""
        index = worker.index
        try:
            reply = worker.receive()
        except (EOFError, OSError, pickle.UnpicklingError):
            end = self._dismiss(worker)
            if index is None:
                batch.count_failed_load(end)
            else:
                batch.outcomes[index] = Outcome(Status.KILLED, message=end)
            return
        if index is not None:
            batch.outcomes[index] = reply.outcome
            if not reply.healthy or worker.checks >= self._recycle_checks:
                self._dismiss(worker)
        elif reply.outcome.status is Status.OK:
            worker.function = batch.function
        else:
            self._dismiss(worker)
            message = f"cannot import {batch.function!r}: {reply.outcome.message}"
            raise ValueError(message)

    def _time_out(self, worker: "_Worker", batch: "_Batch"):
        self._dismiss(worker)
        if worker.index is None:
            batch.count_failed_load(f"not within {_LOAD_SECONDS:g} s")
        else:
            message = f"the check took longer than {self._check_seconds:g} s"
            batch.outcomes[worker.index] = Outcome(Status.TIMEOUT, message=message)

    def _dismiss(self, worker: "_Worker") -> str:
        self._workers.remove(worker)
        return worker.kill()


class _Batch:
    """The checks of one `map`: which wait, and what became of the others."""

    def __init__(self, function: str, arguments: Sequence[tuple[Any, ...]]):
        self.function = function
        self.arguments = arguments
        self.waiting = collections.deque(range(len(arguments)))
        self.outcomes: dict[int, Outcome] = {}
        self.failed_loads = 0

    @property
    def unfinished(self) -> int:
        return len(self.arguments) - len(self.outcomes)

    def count_failed_load(self, end: str):
        self.failed_loads += 1
        if self.failed_loads >= _MAX_FAILED_LOADS:
            raise RuntimeError(
                f"{self.failed_loads} verifier workers failed to import "
                f"{self.function!r}: {end}"
            )


class _Worker:
    """The parent's end of one process: sends a request, receives its reply."""

    def __init__(self):
        # In a session of its own: Ctrl-C does not reach it, and killing the session
        # kills what a check has started, too.
        start = _START.format(path=sys.path, package=__package__)
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.function: str | None = None
        self.busy = False
        self.index: int | None = None  # of the check it runs; None while it imports
        self.checks = 0
        self.deadline = 0.0

    def send(self, request: Load | Check, seconds: float, index: int | None = None):
        data = pickle.dumps(request)
        self.busy, self.index = True, index
        self.deadline = time.monotonic() + seconds
        self.requests.write(data)
        self.requests.flush()

    def receive(self) -> Any:
        reply = pickle.load(self.replies)
        self.busy = False
        self.checks += self.index is not None
        return reply

    def kill(self) -> str:
        """Ends the process and its children; returns how it ended, in words."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        code = self.process.wait()
        if code < 0:
            return f"the process got {signal.Signals(-code).name}"
        return f"the process exited with code {code}"


def _import_path(function: str | Callable[..., Any]) -> str:
    if isinstance(function, str):
        if not all(function.partition(":")):
            raise ValueError(f'{function!r} is not of the form "package.module:name"')
        return function
    path = f"{function.__module__}:{function.__qualname__}"
    if function.__module__ == "__main__" or "<" in path:
        raise ValueError(
            f"workers cannot import {path!r}: define the function at the top level of "
            "a module, not in a script, a notebook, a lambda or another function"
        )
    return path


def _kill_all(workers: list[_Worker]):
    while workers:
        workers.pop().kill()
