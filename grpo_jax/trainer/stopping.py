"""When a run ends before its last step: a signal, or a time budget."""

import re
import signal
import time
from types import FrameType

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


class Stopper:
    """Says between steps whether to save and stop, and why.

    Installs handlers of SIGTERM and SIGINT; a second signal is not caught, so that an
    impatient user is obeyed at once. Use as a context manager.
    """

    def __init__(self, budget_seconds: float = 0.0):
        """Starts the clock; a budget of 0 is no budget."""
        self.reason = ""
        self._budget = budget_seconds
        self._start = self._last = time.monotonic()
        self._longest = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Stopper":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def lap(self) -> None:
        """Says that steps begin now: what came before was none."""
        self._last = time.monotonic()

    def should_stop(self) -> bool:
        """Returns whether the step that just ended must be the last; call every step.

        With a budget, the run stops while twice the longest step so far still fits:
        once for the next step and once for saving.
        """
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        if self._budget and not self.reason:
            left = self._budget - (now - self._start)
            if left < 2 * self._longest:
                self.reason = "time budget"
        return bool(self.reason)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._previous = {}


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as "8h30m", "45s" or "90" (seconds).

    Raises:
      ValueError: anything else.
    """
    if not text:
        return 0.0
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    if "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    raise ValueError(f"--time_budget is {text!r}: write it like 8h30m, 45m or 90s")
