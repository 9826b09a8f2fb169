"""What a curated set is written as: the data, the rows that were dropped, the facts."""

import dataclasses
import io
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow
import pyarrow.parquet

from grpo_jax.curation import mixture
from grpo_jax.curation.pass_rates import Policy
from grpo_jax.curation.problems import Problem
from grpo_jax.curation.settings import FORMATS, Settings
from grpo_jax.curation.stage_files import Judged, json_lines
from grpo_jax.reporting.files import write_atomically

Row = dict[str, Any]

_EXAMPLES = 3
_INNER_BINS = 5
_BINS = ["0", *(f"{i / 5:.1f} to {(i + 1) / 5:.1f}" for i in range(_INNER_BINS)), "1"]


def write(settings: Settings, judged: Sequence[Judged]) -> pathlib.Path:
    """Writes dropped.jsonl, then the data; returns where the data is.

    Raises:
      ValueError: no row is left.
    """
    dropped = settings.output / "dropped.jsonl"
    write_atomically(dropped, json_lines(_dropped_rows(judged)))
    for name in FORMATS:  # what lies there is of an earlier run
        (settings.output / f"data.{name}").unlink(missing_ok=True)
    if not judged[-1].kept:
        worst = max(judged, key=lambda each: len(each.dropped))
        raise ValueError(
            f"every row was dropped; the stage that dropped most is {worst.name!r} "
            f"({len(worst.dropped)} of {len(worst.problems)}): {dropped} says why"
        )
    rows = _data_rows(settings, judged)
    path = settings.output / f"data.{settings.format}"
    if settings.format == "jsonl":
        write_atomically(path, json_lines(rows))
    else:
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        write_atomically(path, buffer.getvalue())
    return path


def facts(
    settings: Settings,
    judged: Sequence[Judged],
    command: str,
    policy: Policy | None = None,
) -> Row:
    """Returns what the card and the terminal say, as plain data."""
    final = judged[-1].kept
    labels = _labels(settings, final)
    difficulties = Counter(each.difficulty for each in final)
    return {
        "command": command,
        "settings": _plain(settings),
        "policy": {"name": policy.name, **policy.facts} if policy else {},
        "inputs": [vars(each) | {"sha256": each.digest()} for each in settings.inputs],
        "stages": [_stage_facts(each) for each in judged],
        "pass_rates": _histogram(judged),
        "difficulties": {label: difficulties[label] for label in labels}
        if settings.has_difficulties
        else {},
    }


def _labels(settings: Settings, problems: Sequence[Problem]) -> list[str]:
    """Returns the difficulties from easy to hard, as bands or a mixture list them."""
    listed = list(settings.difficulty_bands) or list(settings.mixture)
    return listed or mixture.ranked(each.difficulty for each in problems)


def _histogram(judged: Sequence[Judged]) -> list[Row]:
    """Returns how many problems have which pass rates, and how many of them are left.

    None and all of the samples have bins of their own.
    """
    stage = next((each for each in judged if each.name == "pass_rates"), None)
    if stage is None:
        return []
    left = {id(each) for each in judged[-1].kept}
    measured, kept = Counter[int](), Counter[int]()
    for problem in stage.problems:
        if (rate := problem.pass_rate) is not None:
            measured[_bin(rate)] += 1
            kept[_bin(rate)] += id(problem) in left
    return [
        {"pass_rate": name, "measured": measured[index], "left": kept[index]}
        for index, name in enumerate(_BINS)
    ]


def _bin(rate: float) -> int:
    if rate in (0.0, 1.0):
        return int(rate) * (len(_BINS) - 1)
    return 1 + int(rate * _INNER_BINS)


def _data_rows(settings: Settings, judged: Sequence[Judged]) -> list[Row]:
    """Returns the rows that are left, with columns that the math task reads."""
    kept = judged[-1].kept
    labels = _labels(settings, kept) if settings.has_difficulties else []
    return [_row(problem, labels) for problem in kept]


def _row(problem: Problem, labels: Sequence[str]) -> Row:
    row: Row = {
        "question": problem.question,
        "answer": problem.answer,
        "solution": problem.solution,
        "source": problem.source,
        "row": problem.where,
    }
    if problem.solved:
        row |= {"pass_rate": problem.pass_rate, "samples": problem.solved.graded}
    if labels:
        label = problem.difficulty
        row |= {"difficulty": label, "tier": labels.index(label)}
    return row


def _dropped_rows(judged: Sequence[Judged]) -> list[Row]:
    return [
        {
            "row": problem.where,
            "source": problem.source,
            "stage": stage.name,
            **vars(drop),
            "question": problem.question,
            "answer": problem.answer,
        }
        for stage in judged
        for problem, drop in stage.dropped
    ]


def _stage_facts(judged: Judged) -> Row:
    reasons = Counter(drop.reason for _, drop in judged.dropped)
    return {
        "name": judged.name,
        "rows": len(judged.problems),
        "rows_by_source": dict(Counter(each.source for each in judged.problems)),
        "kept": len(judged.kept),
        "kept_by_source": dict(Counter(each.source for each in judged.kept)),
        "reasons": dict(reasons.most_common()),
        "examples": _examples(judged),
        "seconds": judged.seconds,
        "reused": judged.reused,
    }


def _examples(judged: Judged) -> list[Row]:
    """Returns a few rows that were dropped, as many reasons among them as can be."""
    firsts = {}
    for index, (_, drop) in enumerate(judged.dropped):
        firsts.setdefault(drop.reason, index)
    others = [i for i in range(len(judged.dropped)) if i not in firsts.values()]
    chosen = [*firsts.values(), *others][:_EXAMPLES]
    rows = _dropped_rows([judged])
    return [rows[index] for index in chosen]


def _plain(settings: Settings) -> Row:
    """Returns settings as JSON has them."""
    fields = dataclasses.asdict(settings)
    return fields | {
        "output": str(settings.output),
        "keep": sorted(settings.keep),
        "mixture": dict(settings.mixture),
        "difficulty_bands": dict(settings.difficulty_bands),
    }
