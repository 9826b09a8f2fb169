"""What changed between two evaluations, said once for the terminal and the page."""

import dataclasses
from typing import Any

from grpo_jax.reporting.workdir import Number, Run, mapping, number

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value and, where the evaluation gives one, its confidence interval."""

    value: Number
    low: Number | None = None
    high: Number | None = None


@dataclasses.dataclass(frozen=True)
class Measure:
    """One line of the before/after table.

    Attributes:
      name: what is measured.
      is_fraction: shown in percent, its change in points.
      before: None if it was not measured.
      after: None if it was not measured.
    """

    name: str
    is_fraction: bool
    before: Estimate | None
    after: Estimate | None

    @property
    def change(self) -> Number | None:
        """After minus before."""
        if self.before is None or self.after is None:
            return None
        return self.after.value - self.before.value


def before_and_after(run: Run) -> tuple[Row | None, Row | None]:
    """Returns the two evaluations to compare.

    While the run goes on, the last evaluation of the same split stands for "after".
    """
    before, after = run.evaluation("before"), run.evaluation("after")
    if after is None:
        split = before.get("split") if before else None
        others = [row for row in run.evaluations if row.get("name") != "before"]
        same = [row for row in others if before is None or row.get("split") == split]
        after = same[-1] if same else None
    return before, after


def measures(before: Row | None, after: Row | None) -> list[Measure]:
    """Returns what either evaluation measured: pass@k, greedy, length, truncation.

    Of agents also what their task watches, pass@1 by hops, and their calls.
    """
    before, after = sides = before or {}, after or {}
    lines = []
    for kind in ("sampled", "greedy"):
        tables = [_table(before, kind), _table(after, kind)]
        for key in sorted({*tables[0], *tables[1]}, key=_pass_order):
            name = key if kind == "sampled" else f"greedy {key}"
            lines.append(Measure(name, True, *(_estimate(t.get(key)) for t in tables)))
    lines += _of_agents(before, after)
    for key, name, is_fraction in (
        ("format_fraction", "well formed", True),
        ("truncated_fraction", "truncated", True),
        ("calls_mean", "mean calls", False),
        ("completion_tokens_mean", "mean tokens", False),
        ("sampled_tokens_mean", "mean tokens, written", False),
    ):
        pair = (_estimate(before.get(key)), _estimate(after.get(key)))
        lines.append(Measure(name, is_fraction, *pair))
    for kind in ("right", "wrong"):
        pair = (_estimate(_table(row, "tokens_mean").get(kind)) for row in sides)
        lines.append(Measure(f"mean tokens, {kind}", False, *pair))
    pair = (_estimate(_table(row, "contamination").get("clean")) for row in sides)
    lines.append(Measure("pass@1, clean", True, *pair))
    ungraded = [row.get("ungraded_fraction") for row in (before, after)]
    if any(ungraded):
        lines.append(Measure("not graded", True, *map(_estimate, ungraded)))
    return [line for line in lines if line.before or line.after]


def _of_agents(before: Row, after: Row) -> list[Measure]:
    """Returns the rewards that the task watches, and pass@1 by hops."""
    tables = [_table(row, "watched") for row in (before, after)]
    lines = [
        Measure(title_of_reward(key), True, *(_estimate(t.get(key)) for t in tables))
        for key in dict.fromkeys((*tables[0], *tables[1]))
    ]
    hops = [_table(_table(row, "by"), "hops") for row in (before, after)]
    for key in dict.fromkeys((*hops[0], *hops[1])):
        pair = (pass_at_one(_table(table, key)) for table in hops)
        lines.append(Measure(f"pass@1, hops {key}", True, *pair))
    return lines


def title_of_reward(name: str) -> str:
    """Returns how a reward is called in a table."""
    return {"answer_f1": "F1"}.get(name, name.replace("_", " "))


def pass_at_one(row: Row | None) -> Estimate | None:
    """Returns the sampled pass@1 of an evaluation."""
    return _estimate(_table(row or {}, "sampled").get("pass@1"))


def title(row: Row) -> str:
    """Returns how an evaluation is called in a table: "before", "step 40"."""
    name, step = str(row.get("name", "")), number(row.get("step"))
    if name in ("before", "after") or step is None:
        return name
    return f"step {step:g}"


def format_value(measure: Measure, value: Number) -> str:
    """Returns a value in the measure's unit."""
    return f"{100 * value:.1f}%" if measure.is_fraction else f"{value:,.1f}"


def format_interval(measure: Measure, estimate: Estimate) -> str:
    """Returns "low to high" in the measure's unit, or "" without an interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    if measure.is_fraction:
        return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
    return f"{estimate.low:,.1f} to {estimate.high:,.1f}"


def format_change(measure: Measure) -> str:
    """Returns the signed change: points for fractions, the unit otherwise."""
    if measure.change is None:
        return ""
    scale, unit = (100, " points") if measure.is_fraction else (1, "")
    text = f"{scale * measure.change:+.1f}"
    # A minus sign lines up with the plus sign; a hyphen does not.
    return ("0.0" if text[1:] == "0.0" else text.replace("-", "\N{MINUS SIGN}")) + unit


def _table(row: Row, kind: str) -> Row:
    return mapping(row.get(kind))


def _pass_order(key: str) -> tuple[int, str]:
    digits = key.partition("@")[2]
    return (int(digits) if digits.isdigit() else 0, key)


def _estimate(value: Any) -> Estimate | None:
    if isinstance(value, dict):
        mean = number(value.get("mean"))
        low, high = number(value.get("low")), number(value.get("high"))
        return None if mean is None else Estimate(mean, low, high)
    plain = number(value)
    return None if plain is None else Estimate(plain)
