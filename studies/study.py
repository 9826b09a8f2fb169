"""Runs the runs of a study: each in a process of its own, one a core, resumably.

A run that has ended is not run again; one that was stopped goes on from its checkpoint.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Name:
    """REGIME/ARM/SEED: which run."""

    regime: str
    arm: str
    seed: int

    @classmethod
    def parse(cls, text: str, regimes: Mapping[str, Sequence[str]]) -> "Name":
        """Returns the name that a text spells.

        Args:
          text: REGIME/ARM/SEED.
          regimes: the arms of each regime.

        Raises:
          ValueError: there is no such run.
        """
        regime, _, rest = text.partition("/")
        arm, _, seed = rest.partition("/")
        if regime not in regimes:
            raise ValueError(f"{text!r}: {regime!r} is no regime of {list(regimes)}")
        if arm not in regimes[regime]:
            raise ValueError(f"{text!r}: {arm!r} is no arm of {list(regimes[regime])}")
        if not seed.isdecimal():
            raise ValueError(f"{text!r}: write a seed, as in {regime}/{arm}/0")
        return cls(regime, arm, int(seed))

    def __str__(self) -> str:
        return f"{self.regime}/{self.arm}/{self.seed}"


@dataclasses.dataclass(frozen=True)
class Study:
    """What is run, and where.

    Attributes:
      config: file whose `get_config` takes a name.
      start: the run whose weights a run starts from, if any.
      output: directory that gets REGIME/ARM/SEED.
      overrides: flags that every training run is given.
    """

    config: str
    start: Callable[[Name], Name | None]
    output: pathlib.Path
    overrides: Sequence[str] = ()

    def run(self, names: Sequence[Name]) -> None:
        """Trains what is missing of some runs and of those that they start from.

        Raises:
          RuntimeError: a run failed; its last words are in the message.
        """
        order = self._ordered(names)
        starts = {self.start(name) for name in order}
        cores: queue.SimpleQueue[int] = queue.SimpleQueue()
        available = _cores()
        for core in available:
            cores.put(core)
        done = {name: threading.Event() for name in order}
        jobs: list[concurrent.futures.Future[Name]] = []

        def work(name: Name) -> Name:
            # Starts come first in the order, so one of them is always being worked on.
            if before := self.start(name):
                done[before].wait()
            core = cores.get()
            try:
                self._train(name, core)
                if name in starts:
                    self._export(name, core)
            finally:
                cores.put(core)
                done[name].set()
            return name

        with concurrent.futures.ThreadPoolExecutor(len(available)) as pool:
            jobs += [pool.submit(work, name) for name in order]
            try:
                for job in concurrent.futures.as_completed(jobs):
                    left = sum(not each.done() for each in jobs)
                    print(f"{job.result()} is done, {left} are left", flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ordered(self, names: Sequence[Name]) -> list[Name]:
        """Returns the runs and all that they start from, starts first."""
        depths: dict[Name, int] = {}

        def depth(name: Name) -> int:
            before = self.start(name)
            depths[name] = 1 + depth(before) if before else 0
            return depths[name]

        for name in names:
            depth(name)
        return sorted(depths, key=depths.__getitem__)

    def _train(self, name: Name, core: int) -> None:
        folder = self.output / str(name)
        if is_done(folder):
            return
        flags = [f"--config={self.config}:{name}", f"--workdir={folder}"]
        if before := self.start(name):
            flags.append(f"--config.policy.path={self.output / str(before) / 'model'}")
        _door("train", [*flags, *self.overrides], folder, core)

    def _export(self, name: Name, core: int) -> None:
        folder = self.output / str(name)
        if not (folder / "model").is_dir():
            flags = [f"--workdir={folder}", f"--output={folder / 'model'}"]
            _door("export", [*flags, "--dtype=float32"], folder, core)


def is_done(folder: pathlib.Path) -> bool:
    """Returns whether the run in a folder has ended."""
    with contextlib.suppress(OSError, ValueError):
        summary = json.loads((folder / "summary.json").read_text())
        return summary["stopped"] == "finished"
    return False


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _door(door: str, flags: Sequence[str], folder: pathlib.Path, core: int) -> None:
    """Runs a door on one core; what it says goes to FOLDER/log.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"grpo_jax.{door}", *flags],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        with contextlib.suppress(AttributeError, ProcessLookupError):
            # Before it has any threads, which will stay on the core, too. Linux only.
            os.sched_setaffinity(process.pid, {core})
        status = process.wait()
    if status:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RuntimeError(f"{door} {' '.join(flags)} failed; from {log}:\n{last}")
