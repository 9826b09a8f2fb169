"""The page's tables: before and after, runs side by side, seconds, configuration."""

import html
import json
from collections.abc import Sequence
from typing import Any

from grpo_jax.reporting import evaluations
from grpo_jax.reporting.evaluations import Estimate, Measure
from grpo_jax.reporting.plots import COLOURS
from grpo_jax.reporting.scales import format_number
from grpo_jax.reporting.workdir import (
    Number,
    Row,
    Run,
    flatten,
    mapping,
    number,
    series,
)

_PHASES = ("warm_start", "rollout", "reward", "update", "evaluation")
_SAME = "all runs agree"


def state(run: Run) -> str:
    """Returns whether the run goes on, finished, or why it stopped."""
    if not run.ended:
        return '<span class="state going">in progress</span>'
    why = str(run.summary.get("stopped") or "finished")
    kind = "done" if why == "finished" else "stopped"
    text = why if why == "finished" else f"stopped: {why}"
    return f'<span class="state {kind}">{html.escape(text)}</span>'


def notes(sentences: Sequence[str]) -> str:
    """Returns what could not be read, as a list."""
    if not sentences:
        return ""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences[:20])
    more = f"<li>… and {len(sentences) - 20} more</li>" if len(sentences) > 20 else ""
    return f'<ul class="notes">{items}{more}</ul>'


def before_after(before: Row | None, after: Row | None, confidence: Number) -> str:
    """Returns what changed, with intervals, and a bar that shows them to scale."""
    lines = evaluations.measures(before, after)
    if not lines:
        return '<p class="hint">No evaluation has been made yet.</p>'
    body = "".join(
        f'<tr><th scope="row">{html.escape(line.name)}</th>'
        f"{_estimate(line, line.before)}{_estimate(line, line.after)}"
        f'{_change(line)}<td class="wide">{_range_bar(line)}</td></tr>'
        for line in lines
    )
    first = evaluations.title(before) if before else "before"
    second = evaluations.title(after) if after else "after"
    return (
        '<div class="scroll"><table class="results"><thead><tr><th></th>'
        f"<th>{html.escape(first)}</th><th>{html.escape(second)}</th><th>change</th>"
        f'<th class="wide axis"><span>0%</span><span>100%</span></th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<p class="hint">{_caption(before or after or {}, confidence)}</p>'
    )


def runs_table(runs: Sequence[Run]) -> str:
    """Returns one line a run: how far it came, what it reached, what it cost."""
    heads = "pass@1 before,pass@1 after,change,reward,steps,tokens/s,time"
    body = "".join(_run_line(index, run) for index, run in enumerate(runs))
    return (
        '<div class="scroll"><table class="results"><thead><tr><th>run</th>'
        + "".join(f"<th>{head}</th>" for head in heads.split(","))
        + f"</tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="hint">Reward and tokens/s are means of the last 10 steps. Intervals '
        "stand under the values they belong to.</p>"
    )


def seconds(run: Run) -> str:
    """Returns where the time went, as one stacked bar."""
    known = mapping(run.summary.get("seconds")) or _seconds_of_steps(run)
    parts = [(name, number(known.get(name)) or 0.0) for name in _PHASES]
    spent = sum(value for _, value in parts)
    total = max(number(known.get("total")) or 0.0, spent)
    if not spent:
        return ""
    parts.append(("other", total - spent))
    shown = [part for part in parts if part[1] > 0.002 * total]
    bar = "".join(
        f'<span class="{name}" style="flex:{value / total:.4f}"></span>'
        for name, value in shown
    )
    legend = "".join(
        f'<li class="{name}">{name.replace("_", " ")} <b>{duration(value)}</b></li>'
        for name, value in shown
    )
    return (
        f'<h3>Where the time went</h3><div class="stack">{bar}</div>'
        f'<ul class="phases">{legend}</ul>'
    )


def all_evaluations(run: Run) -> str:
    """Returns every evaluation of the run, folded away."""
    rows = run.evaluations
    if len(rows) < 3:
        return ""
    names = [m.name for m in evaluations.measures(rows[0], rows[-1])]
    body = []
    for row in rows:
        found = {m.name: m for m in evaluations.measures(None, row)}
        cells = "".join(
            _estimate(found[name], found[name].after) if name in found else "<td></td>"
            for name in names
        )
        title = html.escape(f"{evaluations.title(row)} ({row.get('split', '')})")
        body.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    return (
        f"<details><summary>All {len(rows)} evaluations</summary>"
        f'<div class="scroll"><table class="results"><thead><tr><th></th>{heads}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div></details>"
    )


def configuration(runs: Sequence[Run]) -> str:
    """Returns every field; of several runs, first the fields that differ."""
    leaves = [flatten(run.config) for run in runs]
    names = list(dict.fromkeys(name for fields in leaves for name in fields))
    if not names:
        return '<p class="hint">config.json is absent.</p>'
    if len(runs) == 1:
        return _fields("Every field", names, leaves, runs)
    differ = [n for n in names if len({_json(fields.get(n)) for fields in leaves}) > 1]
    same = [name for name in names if name not in differ]
    first = _fields("What differs", differ, leaves, runs, opened=True)
    if not differ:
        first = f'<p class="hint">{_SAME} on every field.</p>'
    return first + _fields("What all runs share", same, leaves[:1], runs[:1])


def duration(value: Number) -> str:
    """Returns seconds as 4.2 s, 5 min 53 s or 3 h 12 min."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def recent_mean(run: Run, key: str, steps: int = 10) -> Number | None:
    """Returns the mean of the last steps that have the metric."""
    values = [value for _, value in series(run.metrics, key)[-steps:]]
    return sum(values) / len(values) if values else None


def _estimate(measure: Measure, estimate: Estimate | None) -> str:
    if estimate is None:
        return '<td class="none">·</td>'
    interval = evaluations.format_interval(measure, estimate)
    small = f"<small>{interval}</small>" if interval else ""
    return f"<td>{evaluations.format_value(measure, estimate.value)}{small}</td>"


def _change(measure: Measure) -> str:
    value, _, unit = evaluations.format_change(measure).partition(" ")
    small = f"<small>{unit}</small>" if unit else ""
    return f'<td class="{_direction(measure)}">{value}{small}</td>'


def _direction(measure: Measure) -> str:
    """Returns a class that colours a change of pass@k whose intervals do not meet."""
    before, after = measure.before, measure.after
    if not (before and after) or "pass@" not in measure.name:
        return ""
    if after.low is not None and before.high is not None and after.low > before.high:
        return "up"
    if after.high is not None and before.low is not None and after.high < before.low:
        return "down"
    return ""


def _range_bar(measure: Measure) -> str:
    """Returns both values and intervals on a scale from 0 to 100%."""
    if not measure.is_fraction:
        return ""
    marks = []
    for kind, e in (("was", measure.before), ("is", measure.after)):
        if e is None:
            continue
        low, value, high = (
            100 * min(max(y, 0.0), 1.0)
            for y in (e.low or e.value, e.value, e.high or e.value)
        )
        marks.append(
            f'<i class="{kind}" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
            f'<b class="{kind}" style="left:{value:.1f}%"></b>'
        )
    return f'<div class="range" aria-hidden="true">{"".join(marks)}</div>'


def _caption(row: Row, confidence: Number) -> str:
    problems, samples = number(row.get("problems")), number(row.get("samples"))
    parts = []
    if problems:
        split = html.escape(str(row.get("split", "")))
        parts.append(f"{problems:,} {split} problems".replace("  ", " "))
    if samples:
        parts.append(f"{samples:g} samples each")
    parts.append(f"small: {100 * confidence:g}% interval")
    return " · ".join(parts)


def _run_line(index: int, run: Run) -> str:
    before, after = evaluations.before_and_after(run)
    pair = (evaluations.pass_at_one(before), evaluations.pass_at_one(after))
    line = Measure("pass@1", True, *pair)
    reward, speed = (
        recent_mean(run, key) for key in ("reward/mean", "rollout/tokens_per_second")
    )
    total = number(mapping(run.summary.get("seconds")).get("total"))
    if total is None:
        total = sum(value for _, value in series(run.metrics, "time/step_seconds"))
    cells = [
        "" if reward is None else format_number(reward),
        f"{run.metrics[-1]['step']:,}" if run.metrics else "0",
        "" if speed is None else format_number(speed),
        duration(total),
    ]
    return (
        f'<tr><th scope="row"><span class="swatch c{index % COLOURS}"></span>'
        f"{html.escape(run.name)} {'' if run.ended else state(run)}</th>"
        f"{_estimate(line, line.before)}{_estimate(line, line.after)}"
        f"{_change(line)}" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    )


def _seconds_of_steps(run: Run) -> dict[str, Number]:
    """Returns seconds by phase, summed over the steps so far."""
    rows = [*run.metrics, *run.warm_start]
    sums = {
        phase: sum(value for _, value in series(run.metrics, f"time/{phase}_seconds"))
        for phase in _PHASES
    }
    sums["warm_start"] += sum(v for _, v in series(run.warm_start, "time/step_seconds"))
    return sums | {"total": sum(v for _, v in series(rows, "time/step_seconds"))}


def _fields(
    summary: str,
    names: Sequence[str],
    leaves: Sequence[dict[str, Any]],
    runs: Sequence[Run],
    *,
    opened: bool = False,
) -> str:
    if not names:
        return ""
    heads = "".join(f"<th>{html.escape(run.name)}</th>" for run in runs)
    header = f"<thead><tr><th></th>{heads}</tr></thead>" if len(runs) > 1 else ""
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(
            f"<td>{html.escape(_json(fields[name]) if name in fields else '·')}</td>"
            for fields in leaves
        )
        + "</tr>"
        for name in names
    )
    return (
        f"<details{' open' if opened else ''}><summary>{summary}</summary>"
        f'<div class="scroll"><table class="fields">{header}<tbody>{body}</tbody>'
        "</table></div></details>"
    )


def _json(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
