"""What a run says in the terminal: a progress line, and at the end what changed.

On a terminal the line is redrawn in place; in logs, CI and notebooks it becomes one
plain line every few seconds. Completions are untrusted text: no markup and no control
character of theirs reaches the terminal.
"""

import io
import sys
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from grpo_jax.reporting import evaluations
from grpo_jax.reporting.groups import group_rows
from grpo_jax.reporting.scales import format_number
from grpo_jax.reporting.turns import turns_of
from grpo_jax.reporting.workdir import Number, Row, number

# Key of a metric, its short name in the line, and whether it is a fraction.
_SHOWN = (
    ("loss", "loss", False),
    ("reward/mean", "reward", False),
    ("reward/accuracy", "pass rate", True),
    ("rollout/completion_tokens_mean", "length", False),
    ("rollout/tokens_per_second", "tokens/s", False),
)


class Progress:
    """The progress line of one phase: use as a context, call `update` each step."""

    def __init__(
        self,
        phase: str,
        total_steps: int,
        *,
        start_step: int = 0,
        quiet: bool = False,
        console: Console | None = None,
        live: bool | None = None,
        every_seconds: Number = 5.0,
        clock: Callable[[], Number] = time.monotonic,
    ):
        """Prepares the line.

        Args:
          phase: "warm start" or "GRPO".
          total_steps: the step at which the phase is done.
          start_step: steps done before, where a run is resumed.
          quiet: prints nothing; set on every host but the first.
          console: where to print; stdout if None.
          live: whether to redraw in place; None: if the console is a terminal.
          every_seconds: least time between two plain lines.
          clock: seconds, for tests.
        """
        self._phase, self._total = phase, total_steps
        self._quiet, self._every, self._clock = quiet, every_seconds, clock
        self._console = console or stdout_console()
        self._is_live = (is_live(self._console) if live is None else live) and not quiet
        self._live: Live | None = None
        self._start = clock()
        self._start_step = self._step = start_step
        # The first step compiles, so the rate is measured from its end.
        self._first: tuple[int, Number] | None = None
        self._last = self._start
        self._printed: tuple[int, Number] | None = None
        self._metrics: dict[str, Number] = {}

    def __enter__(self):
        if self._is_live:
            self._live = Live(
                console=self._console, refresh_per_second=4, get_renderable=self._line
            )
            self._live.start()
        return self

    def __exit__(self, *_: object):
        if self._live:
            self._live.stop()
            self._live = None
        elif self._printed and self._printed[0] != self._step:
            self._print(self._clock())

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Shows a finished step; a metric that is absent keeps its last value."""
        now = self._clock()
        self._step, self._last = step, now
        if self._first is None:
            self._first = (step, now)
        for key, _, _ in _SHOWN:
            value = number(metrics.get(key))
            if value is not None:
                self._metrics[key] = value
        if self._live or self._quiet:
            return
        if self._printed is None or now - self._printed[1] >= self._every:
            self._print(now)

    def say(self, sentence: str) -> None:
        """Prints one plain sentence, above the line where that is redrawn in place."""
        if not self._quiet:
            print_plain(self._console, sentence)

    def _print(self, now: Number):
        self._printed = (self._step, now)
        print_plain(self._console, self._line().plain)

    def _line(self) -> Text:
        """Returns the line as it stands now."""
        now = self._clock()
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{self._phase} ", style="bold")
        line.append(f"{self._step}/{self._total}")
        for key, name, is_fraction in _SHOWN:
            if key in self._metrics:
                line.append(f"  {name} ", style="dim")
                line.append(format_number(self._metrics[key], is_fraction))
        line.append("  elapsed ", style="dim")
        line.append(clock_time(now - self._start))
        if (left := self._seconds_left(now)) is not None:
            line.append("  left ", style="dim")
            line.append(clock_time(left))
        return line

    def _seconds_left(self, now: Number) -> Number | None:
        if self._first is None or self._step <= self._first[0]:
            return None
        a_step = (self._last - self._first[1]) / (self._step - self._first[0])
        return max(0.0, a_step * (self._total - self._step) - (now - self._last))


def say(sentence: str) -> None:
    """Prints one plain sentence."""
    print_plain(stdout_console(), sentence)


def print_results(
    before: Row | None,
    after: Row | None,
    samples: Sequence[Row],
    report: Path | None,
    *,
    notes: Sequence[str] = (),
    quiet: bool = False,
    console: Console | None = None,
) -> None:
    """Prints what changed, a few completions, and where the report is.

    Args:
      before: an evaluation, as evaluation/NAME.json holds it; None if there is none.
      after: the same at the end.
      samples: rows of rollouts/STEP.jsonl; `choose_samples` picks them.
      report: the HTML page; None if it was not written.
      notes: what else there is to say, a line each.
      quiet: prints nothing; set on every host but the first.
      console: where to print; stdout if None.
    """
    if quiet:
        return
    console = console or stdout_console()
    if evaluations.measures(before, after):
        console.print()
        console.print(results_table(before, after))
    for row in samples:
        console.print()
        console.print(sample_text(row))
    if notes or report is not None:
        console.print()
    for note in notes:
        console.print(Text(note), soft_wrap=True)
    if report is not None:
        # Never wrapped: a path must survive copying.
        console.print(Text(f"report: {report}"), soft_wrap=True)


def print_evaluation(result: Row, *, console: Console | None = None) -> None:
    """Prints one evaluation, as evaluation/NAME.json holds it."""
    console = console or stdout_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(printable(str(result.get("split", ""))), style="bold")
    table.add_column(f"step {result.get('step')}", justify="right", no_wrap=True)
    table.add_column("", style="dim", no_wrap=True)
    for line in evaluations.measures(None, result):
        table.add_row(line.name, *_cells(line, line.after))
    console.print()
    console.print(table)


def results_table(before: Row | None, after: Row | None) -> Table:
    """Returns pass@k, greedy, length and truncation before and after."""
    split = str((before or after or {}).get("split", ""))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(printable(split), style="bold", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", style="dim", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    for line in evaluations.measures(before, after):
        cells = [*_cells(line, line.before), *_cells(line, line.after)]
        table.add_row(line.name, *cells, evaluations.format_change(line))
    return table


def choose_samples(rows: Sequence[Row], count: int = 3) -> list[Row]:
    """Returns completions of different groups with low, middle and high rewards.

    The rows are the first of each group, so the best are not picked out of a group.
    """
    firsts = [rows_of_group[0] for rows_of_group in group_rows(rows).values()]
    firsts.sort(key=lambda row: number(row.get("reward")) or 0.0)
    if len(firsts) <= count:
        return firsts
    return [firsts[round(i * (len(firsts) - 1) / (count - 1))] for i in range(count)]


def sample_text(row: Row, longest: int = 1200) -> Text:
    """Returns a prompt, its completion and its reward, safe to print.

    What an agent was shown is cut to one line a turn.
    """
    reward = number(row.get("reward"))
    said = "none" if reward is None else format_number(reward)
    text = Text()
    text.append(f"reward {said}", style="bold")
    if row.get("reference") not in (None, ""):
        text.append(f"  reference {_shorten(row['reference'], 80)}", style="dim")
    text.append("\n" + _shorten(row.get("prompt"), longest).strip() + "\n", style="dim")
    if turns := turns_of(row):
        for turn in turns:
            written = "".join(part for _, part in turn["parts"])
            text.append(_shorten(written, longest // len(turns)).strip() + "\n")
            if said := _shown(turn):
                text.append(f"  {said}\n", style="dim")
        text.rstrip()
    else:
        text.append(_shorten(row.get("completion"), longest).strip())
    return text


def printable(text: str) -> str:
    """Returns text without what could steer a terminal: escapes, other controls."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "�"
        for c in text
    )


def is_live(console: Console) -> bool:
    """Returns whether a line can be redrawn in place.

    FORCE_COLOR makes rich call any stream a terminal, so the stream is asked too.
    """
    return console.is_interactive and not console.is_jupyter and console.file.isatty()


def stdout_console() -> Console:
    """Returns a console on stdout that a character cannot stop.

    Where stdout cannot encode a completion, a question mark is printed instead.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console()


def print_plain(console: Console, text: str) -> None:
    """Prints one line, unwrapped and without colour, for logs."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()


def clock_time(seconds: Number) -> str:
    """Returns seconds as 0:42, 12:05 or 3:04:05."""
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _cells(measure: Any, estimate: Any) -> tuple[str, str]:
    if estimate is None:
        return "-", ""
    interval = evaluations.format_interval(measure, estimate)
    value = evaluations.format_value(measure, estimate.value)
    return value, f"({interval})" if interval else ""


def _shown(turn: Row, longest: int = 76) -> str:
    """Returns what was wrong with a turn and what it was shown, in one line."""
    facts = list(turn["marks"])
    if turn["query"]:
        facts.append(turn["coverage"])
    facts.append(" ".join(printable(turn["observation"]).split()))
    said = ": ".join(fact for fact in facts if fact)
    return said if len(said) <= longest else said[: longest - 1] + "…"


def _shorten(value: Any, longest: int) -> str:
    text = printable("" if value is None else str(value))
    if len(text) <= longest:
        return text
    half = longest // 2
    missing = len(text) - 2 * half
    return f"{text[:half]}\n[… {missing:,} characters …]\n{text[-half:]}"
