"""Charts, parsed as XML."""

import html
import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from grpo_jax.reporting import plots, scales
from grpo_jax.reporting.plots import Bound, Marker, Series, line_chart
from grpo_jax.reporting.scatter import Dot, scatter_chart


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in parse(svg).iter() if e.tag == "text"]


def paths(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    found = []
    for e in parse(svg).iter("path"):
        if e.get("class") == kind:
            pairs = e.attrib["d"].removeprefix("M").split("L")
            found.append([tuple(map(float, pair.split())) for pair in pairs])
    return found


def test_a_line_goes_where_its_numbers_say():
    svg = line_chart("Loss", [Series(points=[(0, 0.0), (5, 1.0), (10, 0.5)])])
    [[first, middle, last]] = paths(svg, "strong")
    # The plot area of the default size is x 46 to 350, y 34 to 176; 0 is its floor.
    assert first == (46.0, 176.0)
    assert middle[0] == 198.0
    assert last[0] == 350.0
    assert middle[1] < last[1] < first[1]
    assert (first[1] - last[1]) == pytest.approx((first[1] - middle[1]) / 2, abs=0.1)


def test_title_unit_ticks_and_last_value_are_said():
    points = [(step, step / 100) for step in range(1, 101)]
    said = texts(
        line_chart("Reward", [Series(points=points)], unit="mean", smooth=False)
    )
    assert "Reward mean" in said
    assert "1" in said
    assert "step 100" in said
    assert "0.5" in said


def test_percent():
    said = texts(line_chart("x", [Series(points=[(1, 0.5), (2, 0.73)])], percent=True))
    assert "73.0%" in said
    assert "50%" in said or "60%" in said


def test_raw_is_faint_and_smoothed_is_strong():
    points = [(step, float(step % 2)) for step in range(100)]
    svg = line_chart("x", [Series(points=points)])
    [raw], [strong] = paths(svg, "raw"), paths(svg, "strong")

    def height(line):
        return max(y for _, y in line) - min(y for _, y in line)

    assert len(raw) == len(strong) == 100
    assert height(strong) < height(raw) / 2


def test_several_runs_have_a_colour_and_a_legend_entry_each():
    lines = [
        Series(f"run-{i}", [(1, 1.0 + i), (2, 2.0 + i)], colour=i) for i in range(9)
    ]
    svg = line_chart("x", lines)
    colours = [
        g.get("class") for g in parse(svg).findall("g") if g.find("path") is not None
    ]
    assert colours == ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c0"]
    assert [t for t in texts(svg) if t.startswith("run-")][3] == "run-3 5"


def test_error_bars_span_the_interval():
    markers = [Marker(0, 0.5, 0.4, 0.6), Marker(10, 0.8)]
    svg = line_chart("pass@1", [Series(markers=markers)], percent=True)
    bars = [e.get("d") for e in parse(svg).iter("path") if e.get("class") == "bar"]
    assert len(bars) == 1
    assert len(parse(svg).findall(".//circle")) == 2


def test_bounds_are_within_reach_and_trips_stand_at_their_step():
    line = Series(points=[(0, 0.0), (5, 0.1), (10, 0.1)], trips=[5])
    bounds = [Bound(0.5, "warn"), Bound(2.0, "stop")]
    svg = line_chart("x", [line], bounds=bounds)
    lines = [e for e in parse(svg).iter("line") if "bound" in e.get("class", "")]
    assert [e.get("class") for e in lines] == ["bound warn", "bound stop"]
    warn, stop = (float(e.get("y1")) for e in lines)
    # The plot area of the default size is x 46 to 350, y 34 to 176; 0 is its floor.
    assert 34 <= stop < warn < 176
    assert (176 - warn) / (176 - stop) == pytest.approx(0.25, abs=0.01)
    assert [
        e.get("d") for e in parse(svg).iter("path") if e.get("class") == "trip"
    ] == ["M198.0 34V176"]
    assert line_chart("x", [Series()], bounds=bounds) == ""


def test_a_scatter_has_a_dot_a_row():
    dots = [Dot(0, 0.0), Dot(5, 1.0, hollow=True), Dot(10, 0.5, colour=9)]
    svg = scatter_chart("<Reward>", dots, unit="step 3", x_label="tokens")
    circles = parse(svg).findall(".//circle")
    assert [c.get("class") for c in circles] == ["point", "point cut", "point"]
    assert [c.get("cx") for c in circles] == ["46.0", "198.0", "350.0"]
    heights = [float(c.get("cy", "nan")) for c in circles]
    assert heights[1] < heights[2] < heights[0] < 176
    assert [g.get("class") for g in parse(svg).findall("g[@class='c1']")] == ["c1"]
    assert "<Reward> step 3" in texts(svg) and "tokens 10" in texts(svg)
    assert scatter_chart("x", [], x_label="tokens") == ""
    assert parse(scatter_chart("x", [Dot(3, 1.0)], x_label="tokens")) is not None


def test_labels_are_escaped():
    svg = line_chart('<b a="1">', [Series("<i>", [(1, 1)]), Series("&", [(1, 2)])])
    assert any(said.startswith('<b a="1">') for said in texts(svg))
    assert "<b" not in svg.replace("&lt;b", "")


@pytest.mark.parametrize(
    "points",
    [
        [(1, 0.0)],
        [(1, 3.0), (2, 3.0)],
        [(1, -1e-9), (2, 1e9)],
        [(1, 1e-30), (2, 2e-30)],
        [(1, -5.0), (2, -4.0)],
        [(1, 0.0), (2, 0.0)],
        [(1, 1.0), (2, 1.0)],
        [(10**9, 1.0), (10**9 + 1, 2.0)],
    ],
)
def test_odd_ranges_still_draw(points):
    for percent in (False, True):
        svg = line_chart("x", [Series(points=points)], percent=percent)
        assert parse(svg).tag == "svg"
        assert "nan" not in svg


def test_nothing_to_draw():
    assert line_chart("x", [Series("a"), Series("b")]) == ""
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.figure(Path("x.svg"), [""])


def test_hover_data_holds_both_lines():
    svg = line_chart("x", [Series(points=[(1, 0.25), (2, 0.5)])])
    data = json.loads(html.unescape(parse(svg).attrib["data-hover"]))
    assert data["series"] == [
        {"x": [1, 2], "raw": [0.25, 0.5], "strong": [0.25, 0.5]},
    ]
    assert data["range"] == [1, 2]


def test_long_series_keep_their_extremes():
    values = [math.sin(i / 500) for i in range(20_000)]
    values[7_777] = 9.0
    kept = scales.thinned(values)
    assert len(kept) <= 362
    assert {0, 7_777, 19_999} <= set(kept)
    assert kept == sorted(kept)


def test_smoothing():
    assert scales.smoothed([1.0, 5.0]) == [1.0, 5.0]
    assert scales.smoothed([0.1] * 300) == [0.1] * 300
    ramp = [float(i) for i in range(50)]
    assert scales.smoothed(ramp)[10:40] == pytest.approx(ramp[10:40])


def test_ticks():
    assert scales.nice_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert scales.nice_ticks(0, 300) == [0, 100, 200, 300]
    assert scales.nice_ticks(-3, 7, 4) == [-2.5, 0, 2.5, 5]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.03125, "0.0312"), (1.234e-6, "1.23e-6"), (48.31, "48.3")]
    + [(1234, "1234"), (18_240, "18.2k"), (3_200_000, "3.2M"), (-0.5, "-0.5")],
)
def test_numbers_are_written_short(value, said):
    assert scales.format_number(value) == said


def test_figure_is_a_standalone_file(tmp_path):
    charts = [
        line_chart(f"chart {i}", [Series(points=[(1, 1.0), (2, 2.0)])])
        for i in range(4)
    ]
    plots.figure(tmp_path / "deep" / "f.svg", [*charts, ""], columns=3)
    root = ElementTree.parse(tmp_path / "deep" / "f.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    inner = root.findall("{http://www.w3.org/2000/svg}svg")
    assert len(inner) == 4
    assert inner[0].get("y") == inner[2].get("y") != inner[3].get("y")
    assert "prefers-color-scheme" in root[0].text
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f.svg"]
