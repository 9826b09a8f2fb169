"""The verifier pool's worker: a process that runs one check after another.

The parent writes requests to its standard input and reads replies from its standard
output, both pickled; the check itself sees neither.
"""

import contextlib
import dataclasses
import enum
import importlib
import os
import pickle
import resource
import signal
from collections.abc import Callable
from typing import Any


class Status(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    TIMEOUT = "timeout"  # its own deadline or the batch's
    ERROR = "error"  # it raised, MemoryError included
    KILLED = "killed"  # its process died


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one check: a value if `status` is OK, else a message."""

    status: Status
    value: Any = None
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Load:
    """Request to import the function that the following checks call."""

    path: str
    memory_mb: int


@dataclasses.dataclass(frozen=True)
class Check:
    """Request to call the function."""

    arguments: tuple[Any, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Reply:
    """Answer to either request; a worker that is not `healthy` should be replaced."""

    outcome: Outcome
    healthy: bool = True


def serve():
    """Answers requests until the parent closes the pipe."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as null:
        for noise in range(3):  # whatever a check prints cannot reach the protocol
            os.dup2(null.fileno(), noise)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    function = None
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        if isinstance(request, Load):
            reply = _attempt(_load, request.path, request.memory_mb)
            function = reply.outcome.value
            reply = Reply(dataclasses.replace(reply.outcome, value=None))
        else:
            # The parent kills earlier. This ends a check whose parent is gone.
            signal.setitimer(signal.ITIMER_REAL, 2 * request.seconds + 5)
            reply = _attempt(function, *request.arguments)
            signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(_pickled(reply))
        replies.flush()


def _attempt(function: Any, *arguments: Any) -> Reply:
    try:
        return Reply(Outcome(Status.OK, function(*arguments)))
    except Exception as error:  # reported, and never graded as a wrong answer
        healthy = not isinstance(error, (MemoryError, RecursionError))
        return Reply(Outcome(Status.ERROR, message=_describe(error)), healthy)


def _pickled(reply: Reply) -> bytes:
    try:
        return pickle.dumps(reply)
    except Exception as error:  # the check's value cannot be sent
        return pickle.dumps(Reply(Outcome(Status.ERROR, message=_describe(error))))


def _describe(error: Exception) -> str:
    with contextlib.suppress(Exception):  # the text of a sympy error can fail, too
        return f"{type(error).__name__}: {error}"[:500]
    return type(error).__name__


def _load(path: str, memory_mb: int) -> Callable[..., Any]:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    module, _, name = path.partition(":")
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    # Only Linux tells what is in use; macOS refuses to set the limit.
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
        limit = used + memory_mb * 2**20
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    return function
