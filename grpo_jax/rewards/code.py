"""How many of its tests a completion's program passes. Runs inside the verifier pool.

Every test starts the program anew: a fresh interpreter in an empty directory, in a
session of its own that is killed afterwards, without the environment's variables and
with limits on time, memory, processes and the size of what it writes.

**These are limits, not a sandbox.** A program can use the network, read and write what
the user can, fill a disk with many files, and leave processes in yet another session
that live on. Where nobody vouches for what the model has learned from, train in a
container without secrets. Nor are the tests safe from a program made to deceive them:
one that quits early, or prints what it likes, fails; one that walks the interpreter's
frames, reads another process, or returns objects that equal everything, does not.
"""

import dataclasses
import json
import marshal
import os
import pathlib
import secrets
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time

from grpo_jax.rewards import extraction

_PROGRAM = str(pathlib.Path(__file__).with_name("program.py"))
_FILE_BYTES = 16 * 2**20  # what a program prints, and every file that it writes
_TEST_KEYS = ({"input", "output"}, {"code"})
# Libraries of numbers would start a thread for every core, and each needs memory.
_ENVIRONMENT = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
      test_seconds: of one test; a program that takes longer fails it.
      total_seconds: of all tests; those that have not begun by then are failed.
      memory_mb: address space of one process. Enforced on Linux only.
    """

    test_seconds: float
    total_seconds: float
    memory_mb: int


def fraction_passed(completion: str, reference: str, limits: Limits) -> float:
    """Returns the fraction of tests that the last Python block passes.

    Args:
      completion: text; a closed block after the thoughts counts. Without one: 0.
      reference: a JSON list of tests. `{"input": ..., "output": ...}` is passed if the
        program, run as a script, reads the one, prints the other and exits with 0;
        blanks at the ends of lines and of the output do not count. `{"code": ...}` is
        run after the program, in its scope, and is passed if it comes to its end.
      limits: of every program.

    Raises:
      ValueError: `reference` is no such list.
      OSError, RuntimeError: a program could not be started, which is not its fault.
    """
    tests = _read(reference)
    blocks = extraction.python_blocks(extraction.after_thinking(completion))
    if not blocks:
        return 0.0
    end = time.monotonic() + limits.total_seconds
    passed = 0
    for test in tests:
        if time.monotonic() > end:
            break
        passed += _passes(blocks[-1], test, limits)
    return passed / len(tests)


def _read(reference: str) -> list[dict[str, str]]:
    tests = json.loads(reference)
    if not isinstance(tests, list) or not tests:
        raise ValueError(f"{reference!r:.200} is not a JSON list of tests")
    for test in tests:
        if not isinstance(test, dict) or set(test) not in _TEST_KEYS:
            raise ValueError(f"{test!r:.200} is not a test: its keys are not known")
        if not all(isinstance(value, str) for value in test.values()):
            raise ValueError(f"{test!r:.200} is not a test: it must hold text")
    return tests


def _passes(source: str, test: dict[str, str], limits: Limits) -> bool:
    nonce = secrets.token_bytes(16)
    order = {
        "source": source,
        "test": test.get("code"),
        "nonce": nonce,  # only who has come to the end of the test is to write it
        "packages": site.getsitepackages(),
        "seconds": limits.test_seconds,
        "memory_mb": limits.memory_mb,
        "file_bytes": _FILE_BYTES,
    }
    code, output = _run(order, test.get("input", "").encode())
    if code != 0:
        return False
    if "code" in test:
        return output.endswith(nonce)
    return _lines(output.decode(errors="replace")) == _lines(test["output"])


def _run(order: dict, given: bytes) -> tuple[int, bytes]:
    """Returns the exit code, negative if it was killed, and what was printed."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as orders,
        tempfile.TemporaryFile() as stdin,
        # A file, unlike a pipe, has a limit, and no left-over process holds it open.
        tempfile.TemporaryFile() as stdout,
    ):
        orders.write(marshal.dumps(order))
        orders.seek(0)
        stdin.write(given)
        stdin.seek(0)
        descriptor = orders.fileno()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-X", "utf8", _PROGRAM, str(descriptor)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=_ENVIRONMENT | {"HOME": folder},
            pass_fds=[descriptor],
            start_new_session=True,
        )
        deadline = threading.Timer(order["seconds"], _kill, [process.pid])
        deadline.start()
        try:
            code = process.wait()
        finally:
            deadline.cancel()
            _kill(process.pid)
        if os.fstat(descriptor).st_size:
            raise RuntimeError(f"no program could be started (exit code {code})")
        stdout.seek(0)
        return code, stdout.read()


def _kill(group: int):
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS denies it for zombies
        return


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
