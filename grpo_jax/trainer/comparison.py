"""Two policies on the same problems, from the files that `evaluate` writes."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from grpo_jax.reporting.workdir import read_run
from grpo_jax.trainer import paired, statistics

# Settings that make completions another thing, though the problems are the same.
_SAMPLING = ("samples", "sampling", "max_completion_tokens")


@dataclasses.dataclass
class Solved:
    """What a policy did on one problem.

    Attributes:
      prompt: as the policy read it.
      accuracy: of its samples, NaN where one was not graded.
      tokens: of its samples.
      finished: whether each was not cut.
      rewards: of its samples, by name; NaN where one has no value.
      parts: to which ones of an evaluation it belongs, such as "hops" to "2".
    """

    prompt: str
    accuracy: list[float] = dataclasses.field(default_factory=list)
    tokens: list[int] = dataclasses.field(default_factory=list)
    finished: list[bool] = dataclasses.field(default_factory=list)
    rewards: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    parts: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def pass_rate(self) -> float:
        """The fraction of graded samples that are right; NaN if none was graded."""
        return float(statistics.pass_at_k(np.array([self.accuracy]), 1)[0])

    def mean_reward(self, name: str) -> float:
        """The mean of a reward of the samples that have one; NaN if none has."""
        values = np.array([self.rewards.get(name, [])], float)
        return float(statistics.mean_of_samples(values)[0])


# What is asked, its reference, and which of several such problems this is.
_Key = tuple[str, str, int]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation, with every sample.

    Attributes:
      path: of NAME.json.
      result: what it holds.
      problems: by question and reference.
    """

    path: pathlib.Path
    result: dict[str, Any]
    problems: dict[_Key, Solved]

    @property
    def split(self) -> str:
        """The benchmark or the split."""
        return str(self.result.get("split", ""))


def compare(
    a: pathlib.Path, b: pathlib.Path, *, confidence: float, common: bool
) -> list[dict[str, Any]]:
    """Returns one comparison a benchmark, p-values adjusted for their number.

    Args:
      a: NAME.json of an evaluation, or a workdir: the newest of each split in it.
      b: the same of the other policy.
      confidence: of the intervals, such as 0.95.
      common: pair what both have where problems or prompts differ.

    Raises:
      FileNotFoundError: there is no such file or no evaluation.
      ValueError: files that cannot be read, or nothing that can be paired.
    """
    pairs = _pairs(a, b)
    found = [_compare(*pair, confidence=confidence, common=common) for pair in pairs]
    adjusted = paired.holm([each["p_value"] for each in found])
    for each, p_value in zip(found, adjusted, strict=True):
        each["p_value_holm"] = p_value
    return found


def read(path: pathlib.Path) -> Evaluation:
    """Returns an evaluation from NAME.json and the NAME.jsonl beside it.

    Raises:
      FileNotFoundError: one of them is missing.
      ValueError: one of them cannot be read or holds no completion.
    """
    result = _parse(str(path), path.read_text(encoding="utf-8"))
    if not isinstance(result.get("sampled"), dict):
        raise ValueError(
            f"{path} is no evaluation: give evaluation/NAME.json of a workdir"
        )
    lines = path.with_suffix(".jsonl")
    if not lines.exists():
        raise FileNotFoundError(
            f"{lines} is missing, which holds the completions of {path.name}: keep both"
        )
    by_problem: dict[tuple[Any, ...], Solved] = {}
    for number, line in enumerate(_lines(lines), start=1):
        row = _parse(f"{lines}:{number}", line)
        try:
            question = row.get("question", row["prompt"])
            key = (row.get("problem", row["prompt"]), question, row["reference"])
            solved = by_problem.setdefault(key, Solved(row["prompt"]))
            solved.accuracy.append(_number(row["accuracy"]))
            for name, value in row.get("rewards", {}).items():
                solved.rewards.setdefault(name, []).append(_number(value))
            solved.parts = row.get("parts", {})
            solved.tokens.append(int(row["completion_tokens"]))
            solved.finished.append(bool(row["finished"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{lines}:{number} is no graded completion ({error!r}): evaluate again"
            ) from error
    if not by_problem:
        raise ValueError(f"{lines} is empty: evaluate again")
    seen = collections.Counter[tuple[str, str]]()
    problems: dict[_Key, Solved] = {}
    for (_, question, reference), solved in by_problem.items():
        problems[question, reference, seen[question, reference]] = solved
        seen[question, reference] += 1
    return Evaluation(path, result, problems)


def _pairs(a: pathlib.Path, b: pathlib.Path) -> list[tuple[Evaluation, Evaluation]]:
    """Returns the evaluations that belong together."""
    if a.is_file() and b.is_file():
        return [(read(a), read(b))]
    sides = _by_split(a), _by_split(b)
    splits = [split for split in sides[0] if split in sides[1]]
    if not splits:
        raise ValueError(
            f"{a} holds evaluations of {list(sides[0])} and {b} of {list(sides[1])}: "
            "evaluate both on the same benchmark"
        )
    return [(read(sides[0][split]), read(sides[1][split])) for split in splits]


def _by_split(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the newest evaluation of each split, of a workdir or of one file."""
    if path.is_file():
        return {read(path).split: path}
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist: give a workdir or its evaluation/NAME.json"
        )
    run = read_run(path)
    unreadable = [each for each in run.notes if str(path / "evaluation") in each]
    if unreadable:
        raise ValueError("; ".join(unreadable))
    found = {
        str(row.get("split", "")): path / "evaluation" / f"{row['name']}.json"
        for row in run.evaluations
    }
    if not found:
        raise FileNotFoundError(
            f"{path / 'evaluation'} holds no evaluation: run grpo_jax.evaluate first"
        )
    return found


def _compare(
    a: Evaluation, b: Evaluation, *, confidence: float, common: bool
) -> dict[str, Any]:
    notes = _settings_that_differ(a, b)
    keys = [key for key in a.problems if key in b.problems]
    others = len(a.problems) + len(b.problems) - 2 * len(keys)
    asked = [a.problems[key].prompt != b.problems[key].prompt for key in keys]
    if (others or any(asked)) and not common or not keys:
        raise ValueError(
            f"{a.path} has {len(a.problems)} problems and {b.path} {len(b.problems)}: "
            f"{len(keys)} are in both, {sum(asked)} of them with other prompts"
            + ("" if not keys else "; --common compares what is in both")
        )
    if others:
        notes.append(f"{others} problems are in one of the two only and left out")
    if any(asked):
        notes.append(f"{sum(asked)} problems were asked with another prompt")
    rates = np.array(
        [[side.problems[key].pass_rate for key in keys] for side in (a, b)]
    )
    graded = np.asarray(~np.isnan(rates).any(axis=0))
    if not graded.any():
        raise ValueError(f"no problem of {a.path} and {b.path} was graded in both")
    if not graded.all():
        notes.append(f"{(~graded).sum()} problems were not graded in both and left out")
    rates = rates[:, graded]
    keys = [key for key, keep in zip(keys, graded, strict=True) if keep]
    change = paired.difference(rates[0], rates[1], confidence)
    return {
        "split": a.split,
        "problems": len(keys),
        "confidence": confidence,
        "a": _side(a, keys, rates[0]),
        "b": _side(b, keys, rates[1]),
        "difference": _finite(dataclasses.asdict(change)),
        "p_value": change.p_value,
        "mcnemar": _mcnemar(a, b, keys, rates),
        "rewards": _by_reward(a, b, keys, confidence),
        "by": _by_part(a, keys, rates, confidence),
        "notes": notes,
    }


def _by_reward(
    a: Evaluation, b: Evaluation, keys: Sequence[_Key], confidence: float
) -> dict[str, Any]:
    """Returns the comparison by every reward that both evaluations watch."""
    sides = [side.result.get("watched") or {} for side in (a, b)]
    found = {}
    for name in [name for name in sides[0] if name in sides[1]]:
        means = np.array(
            [[side.problems[key].mean_reward(name) for key in keys] for side in (a, b)]
        )
        known = ~np.isnan(means).any(axis=0)
        if known.any():
            found[name] = _pair(means[:, known], confidence)
    return found


def _by_part(
    a: Evaluation,
    keys: Sequence[_Key],
    rates: Float[np.ndarray, "2 N"],
    confidence: float,
) -> dict[str, dict[str, Any]]:
    """Returns the comparison by hops, level and type, as far as A's are known."""
    parts = [a.problems[key].parts for key in keys]
    found: dict[str, dict[str, Any]] = {}
    for column, values in a.result.get("by", {}).items():
        for value in values:
            rows = [part.get(column) == value for part in parts]
            if any(rows):
                chosen = rates[:, np.array(rows)]
                found.setdefault(column, {})[value] = _pair(chosen, confidence)
    return found


def _pair(values: Float[np.ndarray, "2 N"], confidence: float) -> dict[str, Any]:
    """Returns means of both sides and their difference, of one estimate a problem."""
    change = paired.difference(values[0], values[1], confidence)
    return {
        "problems": values.shape[1],
        "a": float(values[0].mean()),
        "b": float(values[1].mean()),
        "difference": _finite(dataclasses.asdict(change)),
    }


def _side(
    one: Evaluation, keys: Sequence[_Key], rates: Float[np.ndarray, " N"]
) -> dict[str, Any]:
    solved = [one.problems[key] for key in keys]
    side = {
        "path": str(one.path),
        "samples": one.result.get("samples"),
        "accuracy": float(rates.mean()),
        "standard_error": statistics.standard_error(rates),
        "completion_tokens_mean": float(np.mean([np.mean(s.tokens) for s in solved])),
        "truncated_fraction": 1 - float(np.mean([np.mean(s.finished) for s in solved])),
    }
    return _finite(side)


def _mcnemar(
    a: Evaluation,
    b: Evaluation,
    keys: Sequence[_Key],
    rates: Float[np.ndarray, "2 N"],
) -> dict[str, Any] | None:
    """Returns McNemar's test where each problem has one sample, else None."""
    sides = [side.problems[key] for side in (a, b) for key in keys]
    if any(len(solved.accuracy) != 1 for solved in sides):
        return None
    only = int((rates[0] > rates[1]).sum()), int((rates[1] > rates[0]).sum())
    return {
        "a_only": only[0],
        "b_only": only[1],
        "p_value": paired.mcnemar_test(*only),
    }


def _settings_that_differ(a: Evaluation, b: Evaluation) -> list[str]:
    return [
        f"{name} differ: {a.result.get(name)} and {b.result.get(name)}"
        for name in _SAMPLING
        if a.result.get(name) != b.result.get(name)
    ]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Returns None for NaN, which JSON does not have."""
    return {name: None if x != x else x for name, x in values.items()}


def _lines(path: pathlib.Path) -> list[str]:
    return [line for line in path.read_text("utf-8").split("\n") if line.strip()]


def _parse(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}): evaluate again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds no object: evaluate again")
    return value
