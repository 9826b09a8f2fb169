"""What the study of agents found, as tables and as a figure."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from grpo_jax.reporting import workdir
from studies import estimates, outcomes
from studies.agents import GENERATED_TOKENS, REGIMES

# In the figure, in the order of their colours; the table has all.
_DRAWN = (
    *("plain", "experts", "recall", "expansion", "all", "all_budget"),
    *("priced", "held"),
)
# Arms that differ in what calls cost.
_COSTS = (("all_budget", "all"), ("priced", "plain"), ("held", "plain"))
# Where curves have their points, in tokens that the policy had generated.
_GRID = np.linspace(0, GENERATED_TOKENS, 26)[1:]
_FEW_STEPS = 5
# What agents are compared by, and what tables multiply it by.
_SCALES = {"right": 100, "evidence": 100, "calls": 1, "surplus": 100, "tokens": 1}
# Of it, what is compared with plain GRPO, by hops, and in the figure.
_MAIN = ("right", "evidence", "calls")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What agents did with test questions, one or more samples of each.

    Attributes:
      right: fraction of answers that are.
      evidence: share of the documents that a question needs which was found.
      calls: a question.
      surplus: of the calls, the share made after everything needed had been found.
      tokens: that the policy wrote, a question.
      hops: right, evidence and calls of questions of so many hops.
    """

    right: float
    evidence: float
    calls: float
    surplus: float
    tokens: float
    hops: Mapping[str, tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one run showed: on test questions, and step by step in training.

    Training questions come once each, so that what is written for them is as new as
    what is written for others.

    Attributes:
      before: of the base.
      after: of the last step.
      tokens: that the policy had generated in training, by step, continuations too.
      right: fraction of completions that are right, by step.
      evidence: share of the documents needed that was found, by step.
      calls: an episode, by step.
    """

    before: Seen
    after: Seen
    tokens: np.ndarray
    right: np.ndarray
    evidence: np.ndarray
    calls: np.ndarray


def write(output: pathlib.Path) -> None:
    """Writes OUTPUT/results.md and OUTPUT/results.svg from the runs that have ended."""
    found = outcomes.find(REGIMES, output, read)
    tables = []
    for regime, arms in found.items():
        tables += [_table(regime, arms), _table_by_hops(arms)]
    outcomes.write(output, tables, _charts(found))


def read(folder: pathlib.Path) -> Outcome:
    """Returns what a finished run showed."""
    run = workdir.read_run(folder)
    return Outcome(
        before=_seen(run, "before"),
        after=_seen(run, "after"),
        tokens=np.cumsum(outcomes.column(run, "rollout/generated_tokens")),
        right=outcomes.column(run, "reward/exact_match"),
        evidence=outcomes.column(run, "reward/evidence_recall"),
        calls=outcomes.column(run, "episode/calls_mean"),
    )


def _seen(run: workdir.Run, name: str) -> Seen:
    row = run.evaluation(name)
    assert row, f"{run.path} has no evaluation {name!r}"
    hops = {hops: _measures(part) for hops, part in row["by"]["hops"].items()}
    surplus = row["episode"].get("surplus_call_fraction", 0.0)
    return Seen(*_measures(row), surplus, row["sampled_tokens_mean"], hops)


def _measures(row: workdir.Row) -> tuple[float, float, float]:
    right = row["sampled"]["pass@1"]["mean"]
    return right, row["evidence_recall_mean"], row["calls_mean"]


_Arms = Mapping[str, Sequence[Outcome]]


def _table(regime: str, arms: _Arms) -> str:
    """Returns a regime's table, in Markdown: means over seeds."""
    bases = [run.before for run in next(iter(arms.values()))]
    lines = [
        f"### {regime}: {REGIMES[regime].title}",
        "",
        f"{len(bases)} seeds, {GENERATED_TOKENS // 1000} thousand generated tokens a "
        "run.",
        "",
        "| arm | steps | right | less plain | evidence | less plain | calls | less "
        "plain | surplus calls | tokens |",
        "|---|---|---|---|---|---|---|---|---|---|",
        _row("base", "", bases, ()),
    ]
    controls = [run.after for run in arms.get("plain", ())]
    for arm, runs in arms.items():
        steps = f"{np.mean([len(run.tokens) for run in runs]):.0f}"
        others = controls if arm != "plain" else ()
        lines.append(_row(arm, steps, [run.after for run in runs], others))
    for pair in _COSTS:
        if all(arm in arms for arm in pair):
            charged, free = ([run.after for run in arms[arm]] for arm in pair)
            less = [f"{field} {_difference(charged, free, field)}" for field in _SCALES]
            lines += ["", f"`{pair[0]}` less `{pair[1]}`: {', '.join(less)}."]
    return "\n".join(lines)


def _row(arm: str, steps: str, seen: Sequence[Seen], others: Sequence[Seen]) -> str:
    cells = [arm, steps]
    for field, scale in _SCALES.items():
        cells.append(estimates.spread(_of(seen, field), scale))
        if field in _MAIN:
            cells.append(_difference(seen, others, field) if others else "")
    return f"| {' | '.join(cells)} |"


def _table_by_hops(arms: _Arms) -> str:
    """Returns right, evidence and calls by how many documents a question needs."""
    known = sorted(next(iter(arms.values()))[0].before.hops)
    header = [f"{name}, {hops}" for name in _MAIN for hops in known]
    rows = {"base": [run.before for run in next(iter(arms.values()))]}
    rows |= {arm: [run.after for run in runs] for arm, runs in arms.items()}
    lines = [
        f"| arm | {' | '.join(header)} |",
        "|---" * (1 + len(header)) + "|",
    ]
    for arm, seen in rows.items():
        cells = [
            f"{_SCALES[name] * np.mean([each.hops[hops][at] for each in seen]):.1f}"
            for at, name in enumerate(_MAIN)
            for hops in known
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(seen: Sequence[Seen], field: str) -> list[float]:
    return [getattr(each, field) for each in seen]


def _difference(seen: Sequence[Seen], others: Sequence[Seen], field: str) -> str:
    values, against = _of(seen, field), _of(others, field)
    return estimates.difference(values, against, scale=_SCALES[field])


def _charts(found: Mapping[str, _Arms]) -> list[str]:
    """Returns the charts of the figure: means over seeds, by what was generated."""
    return [
        outcomes.chart(
            f"{regime}: {field}",
            arms,
            functools.partial(_by_tokens, field),
            drawn=_DRAWN,
            percent=field != "calls",
            x_label="thousand generated tokens",
        )
        for regime, arms in found.items()
        for field in _MAIN
    ]


def _by_tokens(field: str, run: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means of a few steps before each point of the grid."""
    values = getattr(run, field)
    steps = 1 + np.searchsorted(run.tokens, _GRID).clip(max=len(values) - 1)
    means = [values[max(0, step - _FEW_STEPS) : step].mean() for step in steps]
    return _GRID / 1000, np.array(means)
