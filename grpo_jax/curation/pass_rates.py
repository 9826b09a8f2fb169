"""How often a policy solves each problem, by samples of its own.

Sampling takes far longer than every other stage, so each chunk of problems is written
down when it is done, in a file that only ever grows: a run that was killed goes on
after its last chunk, and other limits, labels or mixtures sample nothing again.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo_jax.curation.problems import Drop, Problem, Solved, Verdict
from grpo_jax.reporting import terminal


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model with a sampler and a verifier.

    Attributes:
      name: of the model, for people.
      facts: all that its completions depend on, as JSON has it.
      solve: completes problems and grades the completions; slow.
      at_once: problems that one call of `solve` is best given.
    """

    name: str
    facts: Mapping[str, Any]
    solve: Callable[[Sequence[Problem]], list[Solved]]
    at_once: int


def measure(
    problems: Sequence[Problem], policy: Policy, path: pathlib.Path
) -> list[Problem]:
    """Returns the problems with what the policy made of them.

    Args:
      problems: no two with the same question.
      policy: asked about what is not in the file.
      path: the file of earlier samples, of this policy and of others; it grows.
    """
    mark = _hash(policy.facts)
    known = _read(path, mark)
    keys = [_hash([each.question, each.answer]) for each in problems]
    rows = [(k, p) for k, p in zip(keys, problems, strict=True) if k not in known]
    start = len(problems) - len(rows)
    with terminal.Progress("pass rates", len(problems), start_step=start) as progress:
        for first in range(0, len(rows), policy.at_once):
            chunk = rows[first : first + policy.at_once]
            solved = policy.solve([problem for _, problem in chunk])
            done = [
                {"policy": mark, "problem": key, "row": problem.where} | each._asdict()
                for (key, problem), each in zip(chunk, solved, strict=True)
            ]
            _append(path, done)
            known |= {row["problem"]: _solved(row) for row in done}
            rate = _mean_rate(solved)
            progress.update(start + first + len(chunk), {"reward/accuracy": rate})
    return [
        dataclasses.replace(problem, solved=known[key])
        for key, problem in zip(keys, problems, strict=True)
    ]


def labelled(problems: Sequence[Problem], bands: Mapping[str, float]) -> list[Problem]:
    """Returns measured problems whose difficulty is the band of their pass rate.

    A band begins at its pass rate and ends where the next one begins. Problems without
    a graded sample keep the difficulty that they had.
    """
    from_easy = sorted(bands, key=lambda label: -bands[label])

    def label(problem: Problem) -> str:
        rate = problem.pass_rate
        if rate is None:
            return problem.difficulty
        return next(name for name in from_easy if rate >= bands[name])

    return [dataclasses.replace(each, difficulty=label(each)) for each in problems]


def within(
    problems: Sequence[Problem], *, minimum: float, maximum: float
) -> list[Verdict]:
    """Drops measured problems whose pass rate is below `minimum` or above `maximum`.

    Both limits are kept. A sample that could not be graded counts neither way; a
    problem without any that could is dropped.
    """

    def judge(problem: Problem) -> Verdict:
        rate, solved = problem.pass_rate, problem.solved
        assert solved is not None, f"{problem.where} was not measured"
        if not solved.sampled:
            return Drop("long_prompt", "longer than config.rollout.max_prompt_tokens")
        if rate is None:
            return Drop("not_graded", f"none of {solved.sampled} samples")
        if minimum <= rate <= maximum:
            return None
        reason = "too_hard" if rate < minimum else "too_easy"
        return Drop(reason, f"{solved.right} of {solved.graded} samples are right")

    return [judge(problem) for problem in problems]


def _read(path: pathlib.Path, mark: str) -> dict[str, Solved]:
    """Returns what a policy solved before, by the key of the problem."""
    if not path.is_file():
        return {}
    # A process that was killed while it wrote leaves half a line: it is cut off.
    whole = path.read_bytes().rpartition(b"\n")
    if whole[2]:
        os.truncate(path, len(whole[0]) + len(whole[1]))
    rows = map(json.loads, whole[0].splitlines())
    return {row["problem"]: _solved(row) for row in rows if row["policy"] == mark}


def _append(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def _solved(row: Mapping[str, Any]) -> Solved:
    return Solved(**{name: row[name] for name in Solved._fields})


def _mean_rate(solved: Sequence[Solved]) -> float | None:
    graded = sum(each.graded for each in solved)
    return sum(each.right for each in solved) / graded if graded else None


def _hash(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
