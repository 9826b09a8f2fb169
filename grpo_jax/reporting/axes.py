"""The frame of a chart: where data lie in it, its grid lines and its labels."""

import dataclasses
import html

from grpo_jax.reporting.scales import format_number, nice_ticks
from grpo_jax.reporting.workdir import Number, Point

# Pixels beside and under the plot area.
LEFT, RIGHT, BOTTOM = 46, 10, 24


@dataclasses.dataclass(frozen=True)
class Box:
    """The plot area in pixels, and the data ranges it shows."""

    left: Number
    right: Number
    top: Number
    bottom: Number
    x: Point
    y: Point

    def at(self, x: Number, y: Number) -> Point:
        """Returns the pixel of a data point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )


def axes(box: Box, x_label: str, percent: bool) -> str:
    """Returns grid lines with their values, and the numbers under the plot."""
    parts = []
    for tick in nice_ticks(*box.y, count=5):
        y = round(box.at(box.x[0], tick)[1]) + 0.5
        label = f"{100 * tick:g}%" if percent else format_number(tick)
        label = "0" if abs(tick) < 1e-12 and not percent else label
        parts.append(
            f'<line class="grid" x1="{box.left}" x2="{box.right}" y1="{y}" y2="{y}"/>'
            f'<text x="{box.left - 6}" y="{y + 3.5}" text-anchor="end">{label}</text>'
        )
    parts.append(f'<g class="steps">{"".join(_x_labels(box, x_label))}</g>')
    return "".join(parts)


def _x_labels(box: Box, x_label: str) -> list[str]:
    """Returns the numbers under the axis; the last one says what they count."""
    ticks = [tick for tick in nice_ticks(*box.x, count=5) if tick == round(tick)]
    last = f"{x_label} {format_number(ticks[-1])}" if ticks else ""
    parts = []
    for tick in ticks:
        x, text, anchor = box.at(tick, 0)[0], format_number(tick), "middle"
        if tick == ticks[-1]:
            text = last
            if x + 3.2 * len(last) > box.right:
                x, anchor = box.right, "end"
        elif x + 16 > box.right - 6.4 * len(last):
            continue
        parts.append(
            f'<text x="{x:.1f}" y="{box.bottom + 16}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>"
        )
    return parts
