"""A chart of points, as SVG text like the line charts."""

import dataclasses
import html
from collections.abc import Sequence

from grpo_jax.reporting.axes import BOTTOM, LEFT, RIGHT, Box, axes
from grpo_jax.reporting.plots import COLOURS
from grpo_jax.reporting.scales import span
from grpo_jax.reporting.workdir import Number


@dataclasses.dataclass(frozen=True)
class Dot:
    """One point.

    Attributes:
      x: a count.
      y: any number.
      hollow: drawn as a ring.
      colour: index into the palette; taken modulo its size.
    """

    x: Number
    y: Number
    hollow: bool = False
    colour: int = 0


def scatter_chart(
    title: str,
    dots: Sequence[Dot],
    *,
    unit: str = "",
    x_label: str,
    width: int = 360,
    height: int = 200,
) -> str:
    """Returns a chart as one <svg> element; "" without dots.

    Args:
      title: what the y axis shows.
      dots: in any order.
      unit: said after the title.
      x_label: what the x axis counts.
      width: pixels.
      height: pixels.
    """
    if not dots:
        return ""
    low, high = span([dot.y for dot in dots])
    pad = 0.06 * (high - low)
    box = Box(
        left=LEFT,
        right=width - RIGHT,
        top=34,
        bottom=height - BOTTOM,
        x=span([0, *(dot.x for dot in dots)]),
        y=(low - pad, high + pad),
    )
    said = html.escape(f"{title}: {len(dots)} points")
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{said}"><text class="title" x="{LEFT - 34}" y="18">'
        f'{html.escape(title)} <tspan class="unit" dx="3">{html.escape(unit)}</tspan>'
        f"</text>{axes(box, x_label, percent=False)}"
        f"{''.join(_circle(dot, box) for dot in dots)}</svg>"
    )


def _circle(dot: Dot, box: Box) -> str:
    x, y = box.at(dot.x, dot.y)
    kind = "point cut" if dot.hollow else "point"
    return (
        f'<g class="c{dot.colour % COLOURS}"><circle class="{kind}" cx="{x:.1f}" '
        f'cy="{y:.1f}" r="3"/></g>'
    )
