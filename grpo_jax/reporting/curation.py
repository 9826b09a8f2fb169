"""What became of every row of a curated set: the data card and the terminal's table."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from grpo_jax.reporting.terminal import printable, stdout_console

Row = dict[str, Any]

_LICENCE = """\
Curation does not change a licence. The problems stay under the terms of the sources
above: look them up, and state them, before this set or a model trained on it is shared.
"""
_LONGEST = 600


def print_counts(facts: Row, *, console: Console | None = None) -> None:
    """Prints how many rows each stage dropped, why, and how many it kept."""
    console = console or stdout_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", style="bold", no_wrap=True)
    for name in ("rows", "dropped", "kept", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", style="dim")
    for stage in facts["stages"]:
        table.add_row(
            stage["name"],
            *map(_count, _counts(stage)),
            "as before" if stage["reused"] else f"{stage['seconds']:.1f}",
            ", ".join(f"{name} {_count(n)}" for name, n in stage["reasons"].items()),
        )
    console.print()
    console.print(table)
    for each in facts["pass_rates"]:
        if each["measured"]:
            measured, left = map(_count, (each["measured"], each["left"]))
            console.print(f"pass rate {each['pass_rate']}: {measured}, {left} left")
    for label, count in facts["difficulties"].items():
        console.print(printable(f"difficulty {label or '(none)'}: {_count(count)}"))


def card(facts: Row) -> str:
    """Returns the data card, in Markdown. The same rows and settings give the same."""
    first, last = facts["stages"][0], facts["stages"][-1]
    parts = [
        "# Data card",
        f"{_count(last['kept'])} of {_count(first['rows'])} problems are left.",
        _code(facts["command"]),
        "## Sources",
        _table(
            ("label", "location", "SHA-256"),
            [(i["label"], i["location"], i["sha256"]) for i in facts["inputs"]],
        ),
        "## Stages",
        _stage_table(facts),
        "## Reasons",
        _table(
            ("stage", "reason", "rows"),
            [
                (stage["name"], reason, _count(count))
                for stage in facts["stages"]
                for reason, count in stage["reasons"].items()
            ],
        ),
    ]
    if facts["pass_rates"]:
        rows = [
            (each["pass_rate"], _count(each["measured"]), _count(each["left"]))
            for each in facts["pass_rates"]
        ]
        table = _table(("pass rate", "problems", "left"), rows)
        policy = json.dumps(facts["policy"], indent=2, ensure_ascii=False)
        parts += ["## Pass rates", table, _code(policy)]
    if facts["difficulties"]:
        rows = [(label, _count(n)) for label, n in facts["difficulties"].items()]
        parts += ["## Difficulties", _table(("difficulty", "rows"), rows)]
    parts += ["## Examples of what was dropped", *_examples(facts)]
    settings = json.dumps(facts["settings"], indent=2, ensure_ascii=False)
    parts += ["## Settings", _code(settings), "## Licence", _LICENCE.strip()]
    return "\n\n".join(parts) + "\n"


def _stage_table(facts: Row) -> str:
    """Returns the rows that each stage kept, of every source and together."""
    first = facts["stages"][0]
    sources = list(first["rows_by_source"])
    lines = [
        ("input", "", _count(first["rows"]))
        + tuple(_count(first["rows_by_source"][source]) for source in sources)
    ]
    for stage in facts["stages"]:
        _, dropped, kept = _counts(stage)
        by_source = (stage["kept_by_source"].get(source, 0) for source in sources)
        lines.append(
            (stage["name"], _count(dropped), _count(kept), *map(_count, by_source))
        )
    return _table(("stage", "dropped", "kept", *sources), lines)


def _examples(facts: Row) -> list[str]:
    parts = []
    for stage in facts["stages"]:
        for row in stage["examples"]:
            why = [f"{stage['name']}: {row['reason']}", row["evidence"]]
            if row["collides_with"]:
                why.append(f"collides with {row['collides_with']}")
            answer = f"answer: {row['answer']}" if row["answer"] else ""
            question = row["question"]
            if len(question) > _LONGEST:
                question = f"{question[:_LONGEST]} ..."
            lines = [row["row"], "; ".join(filter(None, why)), question, answer]
            parts.append(_code("\n".join(filter(None, lines))))
    return parts or ["Nothing was dropped."]


def _counts(stage: Row) -> tuple[int, int, int]:
    return stage["rows"], stage["rows"] - stage["kept"], stage["kept"]


def _count(number: int) -> str:
    return f"{number:,}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [header, ["---"] * len(header), *rows]
    lines = ([cell.replace("|", "\\|") for cell in row] for row in cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """Returns a block that shows any text as it is; a problem may hold anything."""
    return "\n".join(f"    {line}" for line in printable(text).splitlines())
