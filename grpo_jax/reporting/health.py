"""The page's section on how training goes wrong: tripwires, bounds, monitors."""

import html
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from grpo_jax.reporting import curves
from grpo_jax.reporting.groups import evenly_spaced
from grpo_jax.reporting.plots import COLOURS, Bound, Series, line_chart
from grpo_jax.reporting.scales import format_number
from grpo_jax.reporting.scatter import Dot, scatter_chart
from grpo_jax.reporting.workdir import (
    Number,
    Row,
    Run,
    mapping,
    metric_keys,
    number,
    read_rollout,
    series,
)

_MAX_DOTS, _MAX_TRIPS = 600, 100
_RULE = ("action", "side", "metric", "bound")


def section(runs: Sequence[Run], folder: Path) -> str:
    """Returns the section as HTML text.

    Args:
      runs: in the order of the page.
      folder: where the page will lie; links to dumped batches start there.
    """
    charts = [_scatter(runs), *(_chart(runs, key) for key in _keys(runs))]
    figures = "".join(f"<figure>{chart}</figure>" for chart in charts if chart)
    hint = (
        '<p class="hint">Dashed: a bound that warns. Solid: one that stops the run. '
        "Upright: a step at which a rule tripped. docs/monitors.md says what each "
        "metric is for.</p>"
    )
    return (
        f'<section id="health"><h2>Health</h2>{_trips(runs, folder)}{hint}'
        f'<div class="charts">{figures}</div></section>'
    )


def _keys(runs: Sequence[Run]) -> list[str]:
    """Returns what is drawn: what is watched or tripped, then the other monitors."""
    keys = metric_keys(runs)
    tripped = {row.get("metric") for run in runs for row in _tripped(run)}
    watched = [key for key in keys if key in tripped or _bounds(runs, key)]
    monitors = [chart.key for chart in curves.HEALTH if chart.key in keys]
    spreads = [key for key in keys if key.startswith(curves.SPREAD)]
    return list(dict.fromkeys([*watched, *monitors, *spreads]))


def _chart(runs: Sequence[Run], key: str) -> str:
    chart = curves.chart_of(key)
    lines = [
        Series(run.name, series(run.metrics, key), colour=index, trips=_steps(run, key))
        for index, run in enumerate(runs)
    ]
    return line_chart(
        chart.title,
        lines,
        unit=chart.unit,
        percent=chart.percent,
        smooth=chart.smooth,
        bounds=_bounds(runs, key),
    )


def _bounds(runs: Sequence[Run], key: str) -> list[Bound]:
    """Returns the bounds of a metric in the configuration of any run."""
    found: dict[Bound, None] = {}
    for run in runs:
        monitor = mapping(run.config.get("monitor"))
        for action in ("warn", "stop"):
            for side in ("above", "below"):
                value = number(mapping(monitor.get(f"{action}_{side}")).get(key))
                if value is not None:
                    found[Bound(value, action)] = None
    return list(found)


def _steps(run: Run, key: str) -> list[Number]:
    rows = [row for row in _tripped(run) if row.get("metric") == key]
    return [x for row in rows if (x := number(row.get("step"))) is not None]


def _tripped(run: Run) -> list[Row]:
    return [row for row in run.tripwires if row.get("event") == "tripped"]


def _trips(runs: Sequence[Run], folder: Path) -> str:
    """Returns the table of trips, with links to their batches."""
    rows = [
        (index, run, row) for index, run in enumerate(runs) for row in _tripped(run)
    ]
    if not rows:
        return '<p class="hint">No tripwire has tripped.</p>'
    shown = rows[-_MAX_TRIPS:]
    name = "<th>run</th>" if len(runs) > 1 else ""
    body = "".join(_line(*each, len(runs) > 1, folder) for each in shown)
    left_out = f", of which the last {len(shown)} are shown" if shown != rows else ""
    stops = sum(row.get("action") == "stop" for _, _, row in rows)
    return (
        f'<p class="hint">Tripwires tripped {len(rows)} times{left_out}; {stops} of '
        "them stopped the run.</p>"
        f'<div class="scroll"><table class="trips"><thead><tr>{name}<th>step</th>'
        "<th>rule</th><th>values</th><th>recovered</th><th>batch</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _line(index: int, run: Run, row: Row, named: bool, folder: Path) -> str:
    rule = f"{row.get('metric')} {row.get('side')} {row.get('bound')}"
    values = row.get("values")
    seen = [number(each) for each in (values if isinstance(values, list) else [])]
    said = ", ".join(
        "not finite" if each is None else format_number(each) for each in seen
    )
    cells = (
        html.escape(f"{row.get('action')}: {rule}"),
        html.escape(said),
        _recovered(run, row),
        _link(run, str(row.get("dump") or ""), folder),
    )
    swatch = f'<span class="swatch c{index % COLOURS}"></span>{html.escape(run.name)}'
    head = f"<td>{swatch}</td>" if named else ""
    step = f'<th scope="row">{html.escape(str(row.get("step")))}</th>'
    return f"<tr>{head}{step}" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"


def _recovered(run: Run, row: Row) -> str:
    """Returns the step at which a rule that tripped had recovered, "" if it has not."""
    later = run.tripwires[run.tripwires.index(row) + 1 :]
    same = [each for each in later if all(each.get(f) == row.get(f) for f in _RULE)]
    return html.escape(str(same[0].get("step"))) if same else ""


def _link(run: Run, dump: str, folder: Path) -> str:
    """Returns a link to a batch, if it was dumped and is still there."""
    path = run.path / "tripped" / Path(dump).name
    if not dump or not path.is_file():
        return ""
    target = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return f'<a href="{html.escape(urllib.parse.quote(target))}">completions</a>'


def _scatter(runs: Sequence[Run]) -> str:
    """Returns rewards over lengths of the last step that each run wrote down."""
    dots, steps = [], []
    for index, run in enumerate(runs):
        if run.rollout_steps:
            found = _dots(read_rollout(run.path, run.rollout_steps[-1], []), index)
            dots += evenly_spaced(found, _MAX_DOTS // len(runs))
            steps.append(run.rollout_steps[-1])
    unit = f"step {', '.join(map(str, dict.fromkeys(steps)))}; rings were cut"
    return scatter_chart("Reward over length", dots, unit=unit, x_label="tokens")


def _dots(rows: Sequence[Row], colour: int) -> list[Dot]:
    dots = []
    for row in rows:
        tokens, reward = number(row.get("completion_tokens")), number(row.get("reward"))
        if tokens is not None and reward is not None:
            dots.append(Dot(tokens, reward, row.get("finished") is False, colour))
    return dots
