"""What a workdir holds, read so that a run still going can be shown.

A file that is absent is empty; a file that cannot be understood becomes a note for the
reader. Only a directory that holds nothing of a run is an error.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# JSON writes 3.0 and 3 alike, so both are numbers here.
Number = int | float
Point = tuple[Number, Number]


@dataclasses.dataclass(frozen=True)
class Run:
    """What one workdir tells so far.

    Attributes:
      name: the directory's own name.
      path: the directory.
      config: the resolved configuration; {} if absent.
      metrics: one object a GRPO step, by step.
      warm_start: one object a warm-start step, by step.
      evaluations: the objects of evaluation/NAME.json, by step, "after" last.
      summary: {} until the run has ended.
      ladder: what guidance_ladder.json holds; {} if absent.
      tripwires: the lines of tripwires.jsonl, in the order they were written.
      rollout_steps: steps that have a file under rollouts/.
      notes: sentences about files that could not be read.
    """

    name: str
    path: Path
    config: Row
    metrics: list[Row]
    warm_start: list[Row]
    evaluations: list[Row]
    summary: Row
    ladder: Row
    tripwires: list[Row]
    rollout_steps: list[int]
    notes: list[str]

    @property
    def ended(self) -> bool:
        """Whether the run wrote its summary."""
        return bool(self.summary)

    def evaluation(self, name: str) -> Row | None:
        """Returns evaluation/`name`.json, else the summary's copy, else None."""
        for row in self.evaluations:
            if row.get("name") == name:
                return row
        copy = mapping(mapping(self.summary.get("evaluation")).get(name))
        return {"name": name, **copy} if copy else None


def read_run(path: Path) -> Run:
    """Reads a workdir, finished or not.

    Raises:
      ValueError: `path` is no directory, or nothing of a run is in it yet.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"workdir {path} does not exist or is not a directory")
    notes: list[str] = []
    run = Run(
        name=path.resolve().name,
        path=path,
        config=_read_object(path / "config.json", notes),
        metrics=_by_step(read_rows(path / "metrics.jsonl", notes)),
        warm_start=_by_step(read_rows(path / "warm_start.jsonl", notes)),
        evaluations=_read_evaluations(path / "evaluation", notes),
        summary=_read_object(path / "summary.json", notes),
        ladder=_read_object(path / "guidance_ladder.json", notes),
        tripwires=read_rows(path / "tripwires.jsonl", notes),
        rollout_steps=sorted(_rollout_files(path)),
        notes=notes,
    )
    if not (run.metrics or run.warm_start or run.evaluations):
        reasons = "".join(f"; {note}" for note in notes)
        raise ValueError(
            f"workdir {path} has no metrics: metrics.jsonl, warm_start.jsonl and "
            f"evaluation/ are absent or empty; give the --workdir of a training run, "
            f"after its first step{reasons}"
        )
    return run


def read_rollout(path: Path, step: int, notes: list[str]) -> list[Row]:
    """Returns the completions that the run in `path` wrote at `step`."""
    file = _rollout_files(Path(path)).get(step)
    return read_rows(file, notes) if file else []


def read_rows(path: Path, notes: list[str]) -> list[Row]:
    """Returns the objects of a JSONL file; a last line without its end is left out.

    Args:
      path: the file; [] if there is none.
      notes: gains a sentence for every other line that is no JSON object.
    """
    text = _read_text(path, notes)
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if isinstance(row, dict):
            rows.append(row)
        elif number <= text.count("\n"):
            notes.append(f"{path}: line {number} is not a JSON object; left out")
    return rows


def series(rows: Iterable[Mapping[str, Any]], key: str) -> list[Point]:
    """Returns (step, value) of every row where `key` holds a finite number."""
    points = []
    for row in rows:
        step, value = number(row.get("step")), number(row.get(key))
        if step is not None and value is not None:
            points.append((step, value))
    return points


def number(value: Any) -> Number | None:
    """Returns `value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def mapping(value: Any) -> Row:
    """Returns `value` if it is an object, else {}."""
    return value if isinstance(value, dict) else {}


def metric_keys(runs: Sequence[Run]) -> list[str]:
    """Returns every key that holds a number in some step, in order of appearance."""
    keys: dict[str, None] = {}
    for run in runs:
        for row in run.metrics:
            keys.update((k, None) for k, v in row.items() if number(v) is not None)
    keys.pop("step", None)
    return list(keys)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a nested dict under dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def _by_step(rows: list[Row]) -> list[Row]:
    """Returns one row a step, the last one written, in ascending order."""
    latest = {row["step"]: row for row in rows if number(row.get("step")) is not None}
    return [latest[step] for step in sorted(latest)]


def _read_evaluations(folder: Path, notes: list[str]) -> list[Row]:
    rows = []
    for file in sorted(folder.glob("*.json")):
        row = _read_object(file, notes)
        if row:
            rows.append({"name": file.stem, **row})
    # "after" belongs to the same step as the last evaluation during training.
    return sorted(
        rows, key=lambda row: (number(row.get("step")) or 0, row["name"] == "after")
    )


def _read_object(path: Path, notes: list[str]) -> Row:
    text = _read_text(path, notes)
    if not text:
        return {}
    value = _parse(text)
    if isinstance(value, dict):
        return value
    notes.append(f"{path} is not a JSON object; left out")
    return {}


def _read_text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        notes.append(f"{path} cannot be read: {error.strerror}")
        return ""


def _parse(text: str) -> Any:
    try:
        # NaN and Infinity are not JSON; whoever wrote them meant "no number".
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return None


def _rollout_files(path: Path) -> dict[int, Path]:
    """Returns the files of rollouts/ by step: 12.jsonl, 000012.jsonl, step_12.jsonl."""
    files = {}
    for file in (path / "rollouts").glob("*.jsonl"):
        match = re.fullmatch(r"(?:step_)?(\d+)", file.stem)
        if match:
            files[int(match[1])] = file
    return files
