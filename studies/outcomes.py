"""What finished runs showed, read from their files, and how it is drawn."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from grpo_jax.reporting import plots, workdir
from grpo_jax.reporting.files import write_atomically
from studies.school import Regime
from studies.study import Name, is_done

Outcome = TypeVar("Outcome")
# The outcomes of every regime's arms, one a seed.
Found = Mapping[str, Mapping[str, Sequence[Outcome]]]


def find(
    regimes: Mapping[str, Regime],
    output: pathlib.Path,
    read: Callable[[pathlib.Path], Outcome],
) -> dict[str, dict[str, list[Outcome]]]:
    """Returns the outcomes of every arm that has ended with all seeds, by regime."""
    found: dict[str, dict[str, list[Outcome]]] = {}
    for regime, what in regimes.items():
        for arm in what.arms:
            names = [Name(regime, arm, seed) for seed in range(what.seeds)]
            if all(is_done(output / str(name)) for name in names):
                runs = [read(output / str(name)) for name in names]
                found.setdefault(regime, {})[arm] = runs
    return found


def write(output: pathlib.Path, tables: Sequence[str], charts: Sequence[str]) -> None:
    """Writes OUTPUT/results.md and OUTPUT/results.svg, unless there is nothing yet."""
    if not tables:
        print("no arm has ended with all of its seeds: there is no table yet")
        return
    text = "\n\n".join(tables)
    write_atomically(output / "results.md", text + "\n")
    plots.figure(output / "results.svg", charts)
    print(text, f"{output}/results.md", f"{output}/results.svg", sep="\n\n")


def passes(run: workdir.Run, name: str) -> tuple[float, float]:
    """Returns pass@1, sampled and greedy, of the evaluation of that name."""
    row = run.evaluation(name)
    assert row, f"{run.path} has no evaluation {name!r}"
    return row["sampled"]["pass@1"]["mean"], row["greedy"]["pass@1"]["mean"]


def column(run: workdir.Run, key: str) -> np.ndarray:
    """Returns a metric, step by step."""
    return np.array([value for _, value in workdir.series(run.metrics, key)])


def mean(lines: Sequence[np.ndarray]) -> list[workdir.Point]:
    """Returns the mean of lines, each of rows (x, y)."""
    return [(x, y) for x, y in np.mean(np.stack(lines), axis=0).tolist()]


def chart(
    title: str,
    arms: Mapping[str, Sequence[Outcome]],
    points: Callable[[Outcome], tuple[np.ndarray, np.ndarray]],
    *,
    drawn: Sequence[str],
    percent: bool = True,
    smooth: bool = False,
    x_label: str = "step",
) -> str:
    """Returns a chart of the means over seeds.

    Args:
      title: what the y axis shows.
      arms: their outcomes, one a seed.
      points: x and y of an outcome.
      drawn: the arms that are shown, in the order of their colours.
      percent: values are fractions.
      smooth: whether to draw a moving average.
      x_label: what the x axis counts.
    """
    series = []
    for colour, arm in enumerate(drawn):
        lines = [np.stack(points(run), axis=1) for run in arms.get(arm, ())]
        if lines and lines[0].size:
            series.append(plots.Series(arm, mean(lines), colour=colour))
    return plots.line_chart(
        title, series, x_label=x_label, percent=percent, smooth=smooth
    )
