"""How much was compiled, and a cache so that it is compiled once."""

import hashlib
import os
import pathlib
import platform
from typing import Any

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


class CompileLog:
    """Counts the programs compiled in this process, or taken from the cache."""

    def __init__(self):
        """Starts counting."""
        self._programs, self._seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def take(self) -> dict[str, int | float]:
        """Returns programs and seconds since the last call, as metrics."""
        counts = {
            "compile/programs": self._programs,
            "compile/seconds": self._seconds,
        }
        self._programs, self._seconds = 0, 0.0
        return counts

    def close(self) -> None:
        """Stops counting."""
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _EVENT:
            self._programs += 1
            self._seconds += duration_secs


def use_persistent_cache() -> None:
    """Keeps compiled programs in the user's cache directory, unless told where.

    JAX's own setting (JAX_COMPILATION_CACHE_DIR) has precedence. Programs for a
    processor are kept apart by what it can do: a home may be shared by several. Small
    ones are kept as well: there are many, a quarter of a short run's second start.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(base) / "grpo_jax" / f"compiled_{_machine()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _machine() -> str:
    """Returns a name for what this processor can execute."""
    features = ""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        features = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    digest = hashlib.sha256(features.encode()).hexdigest()[:12]
    return f"{platform.machine()}_{digest}"
