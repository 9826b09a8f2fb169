"""Small problems, and runs of the pipeline on them."""

import json
import pathlib
from typing import Any

from grpo_jax.curation import output, pipeline
from grpo_jax.curation.problems import Problem, Verdict
from grpo_jax.curation.reading import Columns, parse_source
from grpo_jax.curation.settings import Settings

ROWS = [
    {"question": "What is $1+1$?", "answer": "2", "level": "easy"},
    {"question": "What is $1-1$?", "answer": "0", "level": "easy"},
    {"question": "Solve $x^2=9$ for positive $x$.", "answer": 3, "level": "hard"},
    {"question": "Что больше: $2^5$ или $5^2$?", "answer": "2^5", "level": "hard"},
    {"question": "Prove that $1 < 2$.", "answer": "1", "level": "hard"},
    {"question": "what is  $1+1$", "answer": "2", "level": "easy"},
]


def problem(question: str, answer: str = "1", **more: str) -> Problem:
    """A row whose place is its question."""
    where = more.pop("where", question[:40])
    return Problem(where, more.pop("source", "test"), question, answer, **more)


def problems(*questions: str) -> list[Problem]:
    return [problem(text, where=f"row {i}") for i, text in enumerate(questions)]


def reasons(verdicts: list[Verdict]) -> list[str]:
    """The reason of each verdict, "" for what is kept."""
    return [verdict.reason if verdict else "" for verdict in verdicts]


def write_lines(path: pathlib.Path, rows: list[Any] | None = None) -> pathlib.Path:
    """Writes JSONL; a text among the rows is written as it is."""
    lines = (
        row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
        for row in (ROWS if rows is None else rows)
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def settings(folder: pathlib.Path, **more: Any) -> Settings:
    """Settings for FOLDER/raw.jsonl, which is written if it is not there."""
    raw = folder / "raw.jsonl"
    if not raw.exists():
        write_lines(raw)
    defaults = {"inputs": (parse_source(str(raw)),), "output": folder / "out"}
    return Settings(**{**defaults, "columns": Columns(), **more})


def curate(settings: Settings) -> list[dict[str, Any]]:
    """Runs the pipeline and returns the rows of data.jsonl."""
    output.write(settings, pipeline.run(settings))
    return read_lines(settings.output / "data.jsonl")
