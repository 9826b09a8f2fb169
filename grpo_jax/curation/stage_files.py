"""What stages decided, kept in files, so that a second run goes on where one ended.

`NN_name.jsonl` begins with a line about the stage; one line follows for every row that
it judged. Its fingerprint covers the stage's settings and, through the fingerprint of
the stage before, everything that its rows depend on.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_jax.curation.problems import Drop, Problem, Verdict
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.reporting.files import write_atomically

# Raise it with a change of what a stage drops: files of an older one are done again.
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Judged:
    """The rows that a stage was given, its verdicts, and how long it took."""

    name: str
    problems: Sequence[Problem]
    verdicts: Sequence[Verdict]
    seconds: float
    reused: bool = False

    @property
    def kept(self) -> list[Problem]:
        """The rows that go on."""
        pairs = zip(self.problems, self.verdicts, strict=True)
        return [problem for problem, verdict in pairs if verdict is None]

    @property
    def dropped(self) -> list[tuple[Problem, Drop]]:
        """The rows that do not."""
        pairs = zip(self.problems, self.verdicts, strict=True)
        return [(problem, verdict) for problem, verdict in pairs if verdict is not None]


def fingerprint_of(problems: Sequence[Problem]) -> str:
    """Returns what changes with any row, or with their order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(vars(problem)).encode())
    return digest.hexdigest()[:16]


def fingerprint(before: str, name: str, settings: Mapping[str, Any]) -> str:
    """Returns what changes with the stages before, and with a stage's settings."""
    facts = [_VERSION, before, name, settings]
    text = json.dumps(facts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: pathlib.Path, mark: str, problems: Sequence[Problem]) -> Judged | None:
    """Returns what a finished stage decided, None if none of this fingerprint did."""
    if not path.is_file():
        return None
    header, *rows = map(json.loads, path.read_text("utf-8").split("\n")[:-1])
    if header["fingerprint"] != mark:
        return None
    verdicts = [Drop(**row["drop"]) if row["drop"] else None for row in rows]
    return Judged(header["stage"], problems, verdicts, header["seconds"], reused=True)


def save(path: pathlib.Path, mark: str, judged: Judged) -> None:
    """Writes what a stage decided; the file is there whole or not at all."""
    header = {
        "stage": judged.name,
        "fingerprint": mark,
        "kept": len(judged.kept),
        "dropped": len(judged.dropped),
        "seconds": round(judged.seconds, 3),
    }
    rows = [
        {"row": problem.where, "drop": verdict and vars(verdict)}
        for problem, verdict in zip(judged.problems, judged.verdicts, strict=True)
    ]
    write_atomically(path, json_lines([header, *rows]))


def _plain(value: Problem | Tokenizer) -> Any:
    """Returns what stands for a setting that JSON does not know."""
    return value.name if isinstance(value, Tokenizer) else vars(value)


def json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns one JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
