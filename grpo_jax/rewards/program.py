"""Runs one program under limits, in a process of its own that `code.py` starts.

    python -I -S -X utf8 program.py DESCRIPTOR

The descriptor is of an open file with an order: a marshalled dict of what `main` reads.
The file is emptied just before the program starts, so that a process that did not come
so far is told from a program that fails. Every run pays for what is imported here.
"""

import marshal
import os
import resource
import signal
import site
import sys
import types


def main(descriptor: int):
    """Runs an order's program as a script, or as a module and then its test.

    A test has passed if the nonce is the last thing written to standard output.
    """
    with open(descriptor, "r+b") as file:
        order = marshal.load(file)
        nonce, test = order["nonce"], order["test"]
        # -S leaves out site, whose .pth files can take longer than a whole program.
        site.setquit()
        sys.path += order["packages"]
        sys.argv[:] = ["program.py"]
        _limit(order["seconds"], order["memory_mb"], order["file_bytes"])
        file.truncate(0)
    if test is None:
        _execute(order["source"], "__main__")
        return
    scope = _execute(order["source"], "program")
    exec(compile(test, "test.py", "exec"), scope)
    os.write(1, nonce)
    os._exit(0)  # whatever the program leaves running has no part in the test


def _execute(source: str, name: str) -> dict:
    # A registered module: dataclasses and pickle look their classes up in it.
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, "program.py", "exec"), module.__dict__)
    return module.__dict__


def _limit(seconds: float, memory_mb: int, file_bytes: int):
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(seconds) + 2,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_AS: memory_mb * 2**20,
    }
    if os.path.exists("/proc/loadavg"):
        # The kernel counts every thread of the user, also those of the trainer: all of
        # the machine's now, and some more. Root is exempt.
        with open("/proc/loadavg") as file:
            threads = int(file.read().split()[3].partition("/")[2])
        limits[resource.RLIMIT_NPROC] = threads + 64
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            if kind != resource.RLIMIT_AS:  # which macOS refuses to set
                raise
    # The parent ends it earlier. This ends a program whose parent is gone.
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
