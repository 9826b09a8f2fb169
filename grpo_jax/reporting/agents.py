"""Charts of search agents whose metrics come in families: by turn, by hops, by calls.

Of one run a family is one chart with a line a member, such as turn 1, turn 2; of
several runs each member is a chart of its own.
"""

import dataclasses
from collections.abc import Sequence

from grpo_jax.reporting.plots import Series, line_chart
from grpo_jax.reporting.workdir import Run, metric_keys, series


@dataclasses.dataclass(frozen=True)
class Family:
    """Metrics whose names are a prefix and a number.

    Attributes:
      prefix: of the names.
      title: of the chart.
      member: what the number counts.
      unit: of the values.
      percent: whether they are fractions.
    """

    prefix: str
    title: str
    member: str
    unit: str = ""
    percent: bool = True


FAMILIES = (
    Family("episode/search_turn_", "Turns that search", "turn"),
    Family("episode/answer_turn_", "Turns that end the episode", "turn"),
    Family("episode/malformed_turn_", "Turns that are malformed", "turn"),
    Family("episode/cut_turn_", "Turns that are cut", "turn"),
    Family("episode/gain_turn_", "Coverage gained by a call", "turn"),
    Family("episode/calls_hops_", "Calls by hops", "hops", "an episode", False),
    Family("episode/tokens_hops_", "Tokens by hops", "hops", "written", False),
    Family("episode/right_hops_", "Right answers by hops", "hops"),
    Family("episode/right_calls_", "Right answers by calls", "calls"),
)


def family_of(key: str) -> Family | None:
    """Returns the family of a metric, None if it has none."""
    for family in FAMILIES:
        if key.removeprefix(family.prefix).isdecimal():
            return family
    return None


def member_title(family: Family, key: str) -> str:
    """Returns how one metric of a family is called."""
    return f"{family.title}, {_member(family, key)}"


def family_charts(runs: Sequence[Run]) -> list[str]:
    """Returns the charts of every family that the runs measured."""
    keys, drawn = metric_keys(runs), []
    for family in FAMILIES:
        members = [key for key in keys if family_of(key) is family]
        members.sort(key=lambda key: int(key.removeprefix(family.prefix)))
        if len(runs) == 1:
            lines = [
                Series(_member(family, key), series(runs[0].metrics, key), colour=index)
                for index, key in enumerate(members)
            ]
            drawn.append(_chart(family, family.title, lines))
            continue
        for key in members:
            lines = [
                Series(run.name, series(run.metrics, key), colour=index)
                for index, run in enumerate(runs)
            ]
            drawn.append(_chart(family, member_title(family, key), lines))
    return [chart for chart in drawn if chart]


def _member(family: Family, key: str) -> str:
    return f"{family.member} {key.removeprefix(family.prefix)}"


def _chart(family: Family, title: str, lines: Sequence[Series]) -> str:
    return line_chart(title, lines, unit=family.unit, percent=family.percent)
