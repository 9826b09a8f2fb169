"""Paired comparisons as a table, for the terminal and as Markdown."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from grpo_jax.reporting.evaluations import title_of_reward
from grpo_jax.reporting.terminal import print_plain, printable, stdout_console

Row = dict[str, Any]

_HEADS = (
    "benchmark",
    "n",
    "samples",
    "A",
    "B",
    "B - A, points",
    "p",
    "p, Holm",
    "tokens A, B",
    "truncated A, B",
)


def print_comparisons(rows: Sequence[Row], *, console: Console | None = None) -> None:
    """Prints what `trainer.comparison.compare` returned."""
    console = console or stdout_console()
    lines = [list(_HEADS), *_lines(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        # Never folded: the table is wider than some terminals.
        print_plain(console, printable("  ".join(cells)))
    for line in ("", *_notes(rows)):
        print_plain(console, printable(line))


def markdown(rows: Sequence[Row]) -> str:
    """Returns the table and its notes as Markdown."""
    lines = [_HEADS, ["---"] * len(_HEADS), *_lines(rows)]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    notes = [f"- {note}" for note in _notes(rows)]
    return "\n".join([*table, "", *notes]) + "\n"


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    """Returns a line a comparison, and below it its rewards and parts."""
    lines = []
    for row in rows:
        lines.append(_cells(row))
        for name, part in row["rewards"].items():
            lines.append(_part(f"{row['split']}, {title_of_reward(name)}", part))
        for column, parts in row["by"].items():
            for value, part in parts.items():
                lines.append(_part(f"{row['split']}, {column} {value}", part))
    return lines


def _part(name: str, part: Row) -> list[str]:
    return [
        name,
        f"{part['problems']:,}",
        "",
        f"{100 * part['a']:.1f}",
        f"{100 * part['b']:.1f}",
        _change(part["difference"]),
        *("", "", "", ""),
    ]


def _cells(row: Row) -> list[str]:
    a, b, change = row["a"], row["b"], row["difference"]
    return [
        row["split"],
        f"{row['problems']:,}",
        f"{a['samples']}" if a["samples"] == b["samples"] else _both(row, "samples"),
        _accuracy(a),
        _accuracy(b),
        _change(change),
        _p_value(row["p_value"]),
        _p_value(row["p_value_holm"]),
        f"{a['completion_tokens_mean']:,.0f}, {b['completion_tokens_mean']:,.0f}",
        f"{100 * a['truncated_fraction']:.1f} %, {100 * b['truncated_fraction']:.1f} %",
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    sides = " and ".join(f"{each.upper()} is {_place(rows, each)}" for each in "ab")
    notes = [
        f"{sides}; ± is one standard error over problems, in brackets the "
        f"{100 * rows[0]['confidence']:g} % interval, p of a paired sign-flip test"
    ]
    for row in rows:
        change, name = row["difference"], row["split"]
        if change["standard_error"]:
            seen = 100 * change["smallest_seen"]
            size, needed = _points(change["mean"]), change["problems_needed"]
            more = f"; one of {size} needs {needed:,} problems" if needed else ""
            notes.append(
                f"{name}: a difference of {seen:.1f} points would be seen in 80 % of "
                f"such comparisons{more}"
            )
        if exact := row["mcnemar"]:
            notes.append(
                f"{name}: only A solved {exact['a_only']}, only B {exact['b_only']} "
                f"(McNemar's exact p {_p_value(exact['p_value'])})"
            )
        notes += [f"{name}: {note}" for note in row["notes"]]
    return notes


def _place(rows: Sequence[Row], side: str) -> str:
    """Returns the file of one evaluation, the workdir of several."""
    path = pathlib.Path(rows[0][side]["path"])
    return str(path if len(rows) == 1 else path.parent.parent)


def _both(row: Row, key: str) -> str:
    return f"{row['a'][key]}, {row['b'][key]}"


def _accuracy(side: Row) -> str:
    error = side["standard_error"]
    shown = "" if error is None else f" ± {100 * error:.1f}"
    return f"{100 * side['accuracy']:.1f}{shown}"


def _change(change: Row) -> str:
    low, high = _points(change["low"]), _points(change["high"])
    return f"{_points(change['mean'])} ({low} to {high})"


def _points(value: float) -> str:
    text = f"{100 * value:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", "\N{MINUS SIGN}")


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
