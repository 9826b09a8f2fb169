"""Checks that go wrong in every way, for the pool's workers to run."""

import ctypes
import os
import subprocess
import sys
import threading
import time


def double(value):
    return 2 * value


def process_id():
    return os.getpid()


def hang():
    while True:
        pass


def sleep(seconds):
    time.sleep(seconds)


def leave(code):
    os._exit(code)


def segfault():
    ctypes.string_at(0)


def fail(message):
    raise LookupError(message)


def recurse(depth=0):
    return recurse(depth + 1)


def allocate(megabytes):
    return len(bytearray(megabytes * 2**20))


def noisy(value):
    print("noise", flush=True)
    os.write(1, b"\x80\x04noise")
    subprocess.run(["echo", "noise"], check=True)
    assert sys.stdin.read() == ""
    threading.Thread(target=print, args=("more noise",)).start()
    return value


def unpicklable():
    return lambda: None


def start_child():
    return subprocess.Popen(["sleep", "600"]).pid


def heavy_modules():
    accelerated = {"jax", "jaxlib", "flax", "torch"} & set(sys.modules)
    return sorted(accelerated), os.environ["JAX_PLATFORMS"]


def act(name, *arguments):
    """Calls another function of this module, so that one batch can mix them."""
    return globals()[name](*arguments)
