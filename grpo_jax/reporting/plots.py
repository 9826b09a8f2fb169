"""Line charts as SVG text, for the page and as standalone files.

A chart shows each raw series faintly and its smoothed self strongly. Colours are CSS
variables (chart.css), so a chart follows the reader's light or dark scheme.
"""

import dataclasses
import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from grpo_jax.reporting.axes import BOTTOM, LEFT, RIGHT, Box, axes
from grpo_jax.reporting.files import package_text, write_atomically
from grpo_jax.reporting.scales import (
    format_number,
    smoothed,
    span,
    thinned,
)
from grpo_jax.reporting.workdir import Number, Point

COLOURS = 8


@dataclasses.dataclass(frozen=True)
class Marker:
    """A measured point with its confidence interval."""

    x: Number
    y: Number
    low: Number | None = None
    high: Number | None = None


@dataclasses.dataclass(frozen=True)
class Bound:
    """A value that a line should not cross, and what happens where it does."""

    y: Number
    action: Literal["warn", "stop"]


@dataclasses.dataclass(frozen=True)
class Series:
    """One run's line, its evaluation points, or both.

    Attributes:
      label: shown in the legend when a chart holds several series.
      points: (x, y), x ascending, all finite.
      markers: points with error bars, joined by a line; x ascending.
      colour: index into the palette; taken modulo its size.
      trips: x where a bound had been crossed for too long.
    """

    label: str = ""
    points: Sequence[Point] = ()
    markers: Sequence[Marker] = ()
    colour: int = 0
    trips: Sequence[Number] = ()


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    unit: str = "",
    x_label: str = "step",
    percent: bool = False,
    smooth: bool = True,
    bounds: Sequence[Bound] = (),
    width: int = 360,
    height: int = 200,
) -> str:
    """Returns a chart as one <svg> element; "" if no series holds a point.

    Args:
      title: what the y axis shows.
      series: one a run; more than one adds a legend.
      unit: said after the title.
      x_label: what the x axis counts; hovering joins the charts that share it.
      percent: values are fractions and are shown as 0% to 100%.
      smooth: whether to draw a moving average over the raw line.
      bounds: drawn as lines across; the range of values reaches them.
      width: pixels.
      height: pixels, without the legend.
    """
    series = [one for one in series if one.points or one.markers]
    if not series:
        return ""
    drawn = [_drawn(one, smooth) for one in series]
    legend, legend_height = _legend(series, drawn, percent, width)
    box = Box(
        left=LEFT,
        right=width - RIGHT,
        top=34 + legend_height,
        bottom=height + legend_height - BOTTOM,
        x=span([x for xs, _, _ in drawn for x in xs]),
        y=_value_range(series, drawn, percent, bounds),
    )
    last = format_number(drawn[0][2][-1], percent)
    suffix = f' <tspan class="unit" dx="3">{html.escape(unit)}</tspan>' if unit else ""
    parts = [
        f'<text class="title" x="{LEFT - 34}" y="18">{html.escape(title)}'
        f"{suffix}</text>",
        legend,
        axes(box, x_label, percent),
        *(_bound(each, box) for each in bounds),
        *(_marks(one, *lines, box) for one, lines in zip(series, drawn, strict=True)),
        f'<line class="cross" y1="{box.top}" y2="{box.bottom}"/>'
        f'<text class="at" y="{box.bottom + 16}" text-anchor="middle"/>',
    ]
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height + legend_height}" '
        f'role="img" aria-label="{html.escape(f"{title}: last value {last}")}" '
        f'data-hover="{_hover(box, drawn, x_label, percent)}">{"".join(parts)}</svg>'
    )


def figure(path: Path, charts: Sequence[str], *, columns: int = 3) -> None:
    """Writes charts on a grid as one standalone SVG file, atomically.

    Args:
      path: the .svg file.
      charts: what `line_chart` returned; empty ones are left out.
      columns: charts in a row.

    Raises:
      ValueError: there is nothing to draw.
    """
    charts = [chart for chart in charts if chart]
    if not charts:
        raise ValueError(f"charts is empty: there is nothing to draw in {path}")
    sizes = [_size(chart) for chart in charts]
    columns, gap, pad = min(columns, len(charts)), 12, 8
    cell_width = max(size[0] for size in sizes) + 2 * pad
    cell_height = max(size[1] for size in sizes) + 2 * pad
    rows = math.ceil(len(charts) / columns)
    cells = []
    for index, (chart, size) in enumerate(zip(charts, sizes, strict=True)):
        x = index % columns * (cell_width + gap) + 0.5
        y = index // columns * (cell_height + gap) + 0.5
        place = f'x="{x + pad}" y="{y + pad}" width="{size[0]}" height="{size[1]}"'
        cells.append(
            f'<rect class="card" x="{x}" y="{y}" rx="8" width="{cell_width}" '
            f'height="{cell_height}"/>'
        )
        chart = re.sub(r' data-hover="[^"]*"', "", chart)
        cells.append(chart.replace("<svg ", f"<svg {place} ", 1))
    total_width = columns * (cell_width + gap) - gap + 1
    total_height = rows * (cell_height + gap) - gap + 1
    write_atomically(
        path,
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width}" '
        f'height="{total_height}" viewBox="0 0 {total_width} {total_height}">'
        f"<style>{package_text('chart.css')}</style>{''.join(cells)}</svg>\n",
    )


_Lines = tuple[list[Number], list[Number], list[Number]]


def _drawn(one: Series, smooth: bool) -> _Lines:
    """Returns x, raw y and strong y as they are drawn and read out."""
    if not one.points:
        ys = [marker.y for marker in one.markers]
        return [marker.x for marker in one.markers], ys, ys
    raw = [y for _, y in one.points]
    strong = smoothed(raw) if smooth else raw
    keep = thinned(raw)
    xs = [one.points[i][0] for i in keep]
    return xs, [raw[i] for i in keep], [strong[i] for i in keep]


def _value_range(
    series: Sequence[Series],
    drawn: Sequence[_Lines],
    percent: bool,
    bounds: Sequence[Bound],
) -> Point:
    """Returns the y range: all that matters, without a few spikes, from 0 if near."""
    raw = sorted(y for _, ys, _ in drawn for y in ys)
    strong = [y for _, _, ys in drawn for y in ys]
    cut = len(raw) // 50
    core = raw[cut : len(raw) - cut]
    shown = [*strong, *core]
    if raw[-1] - raw[0] < 4 * (max(shown) - min(shown)):
        shown += [raw[0], raw[-1]]
    for one in series:
        for m in one.markers:
            shown += [y for y in (m.low, m.high) if y is not None]
    shown += [bound.y for bound in bounds]
    least, most = min(shown), max(shown)
    if least == most == 0:
        return 0.0, 1.0
    low, high = span(shown)
    pad = 0.06 * (high - low)
    # A fraction or a count near zero is easier to judge from zero.
    bottom = 0.0 if 0 <= low < 0.4 * high else low - pad
    top = high + pad
    if percent and least >= 0:
        bottom = max(bottom, 0.0)
    if percent and most <= 1:
        top = min(top, 1.0)
    return bottom, top


def _bound(bound: Bound, box: Box) -> str:
    y = round(box.at(box.x[0], bound.y)[1]) + 0.5
    return (
        f'<line class="bound {bound.action}" x1="{box.left}" x2="{box.right}" '
        f'y1="{y}" y2="{y}"/>'
    )


def _marks(
    one: Series,
    xs: list[Number],
    raw: list[Number],
    strong: list[Number],
    box: Box,
) -> str:
    parts = []
    if one.points and raw != strong:
        parts.append(f'<path class="raw" d="{_path(xs, raw, box)}"/>')
    parts.append(f'<path class="strong" d="{_path(xs, strong, box)}"/>')
    for m in one.markers:
        x, y = box.at(m.x, m.y)
        if m.low is not None and m.high is not None:
            low, high = box.at(m.x, m.low)[1], box.at(m.x, m.high)[1]
            parts.append(
                f'<path class="bar" d="M{x:.1f} {low:.1f}V{high:.1f}'
                f'M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"/>'
            )
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    for trip in one.trips:
        x = box.at(trip, box.y[0])[0]
        parts.append(f'<path class="trip" d="M{x:.1f} {box.top}V{box.bottom}"/>')
    if one.points and len(xs) == 1:
        x, y = box.at(xs[0], strong[0])
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>')
    return f'<g class="c{one.colour % COLOURS}">{"".join(parts)}</g>'


def _path(xs: Sequence[Number], ys: Sequence[Number], box: Box) -> str:
    """Returns the line as path data; what leaves the range is drawn on its edge."""
    low, high = box.y
    pixels = (box.at(x, min(max(y, low), high)) for x, y in zip(xs, ys, strict=True))
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)


def _legend(
    series: Sequence[Series], drawn: Sequence[_Lines], percent: bool, width: int
) -> tuple[str, int]:
    """Returns the last values, with names where there are several, and its height."""
    lasts = [format_number(strong[-1], percent) for _, _, strong in drawn]
    if len(series) == 1:
        return (
            f'<text class="value c{series[0].colour % COLOURS}" data-series="0" '
            f'x="{width - RIGHT}" y="18" text-anchor="end">{lasts[0]}</text>',
            0,
        )
    parts, x, y = [], LEFT - 34, 36
    for index, (one, last) in enumerate(zip(series, lasts, strict=True)):
        label = one.label if len(one.label) <= 24 else one.label[:23] + "…"
        # There is no font to measure with: 6.2 pixels a character at 11 px.
        entry_width = 14 + 6.2 * (len(label) + 1) + 50
        if x > LEFT and x + entry_width > width:
            x, y = LEFT - 34, y + 16
        parts.append(
            f'<g class="c{one.colour % COLOURS}"><rect class="swatch" x="{x}" '
            f'y="{y - 8}" width="9" height="9" rx="2"/><text x="{x + 14}" y="{y}">'
            f'<tspan class="legend">{html.escape(label)}</tspan> '
            f'<tspan data-series="{index}">{last}</tspan></text></g>'
        )
        x += round(entry_width)
    return "".join(parts), y - 18


def _hover(box: Box, drawn: Sequence[_Lines], x_label: str, percent: bool) -> str:
    """Returns what page.js needs to read values out, as an attribute's text."""
    rounded = [
        {
            "x": xs,
            "raw": [float(f"{y:.4g}") for y in raw],
            "strong": [float(f"{y:.4g}") for y in strong],
        }
        for xs, raw, strong in drawn
    ]
    value = {
        "axis": x_label,
        "percent": percent,
        "left": box.left,
        "right": box.right,
        "range": box.x,
        "series": rounded,
    }
    return html.escape(json.dumps(value, separators=(",", ":")))


def _size(chart: str) -> tuple[int, int]:
    match = re.search(r'viewBox="0 0 (\d+) (\d+)"', chart)
    assert match, "a chart comes from line_chart"
    return int(match[1]), int(match[2])
