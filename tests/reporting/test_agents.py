"""Charts and table rows of search agents."""

from grpo_jax.reporting import agents, curves, evaluations
from grpo_jax.reporting.tables import before_after
from grpo_jax.reporting.workdir import Run, read_run
from tests.reporting.conftest import write_rows


def run_of(tmp_path, name: str, **metrics) -> Run:
    rows = [
        {"step": step, "episode/calls_mean": 1.5, **metrics, "mine/odd": 1.0}
        for step in range(1, 6)
    ]
    write_rows(tmp_path / name / "metrics.jsonl", rows)
    return read_run(tmp_path / name)


TURNS = {f"episode/search_turn_{turn}": 1 / turn for turn in (1, 2, 10)}


def test_a_family_is_one_chart_of_one_run(tmp_path):
    run = run_of(tmp_path, "a", **TURNS, **{"episode/calls_hops_spearman": 0.5})
    (chart,) = agents.family_charts([run])
    order = [chart.index(f"turn {turn}<") for turn in (1, 2, 10)]
    assert "Turns that search" in chart and order == sorted(order)
    found = dict(curves.sections([run]))
    assert len(found["Agents"]) == 3 and len(found["Other"]) == 1
    assert "mine/odd" in found["Other"][0]


def test_several_runs_share_the_chart_of_a_member(tmp_path):
    runs = [run_of(tmp_path, "a", **TURNS), run_of(tmp_path, "b")]
    charts = agents.family_charts(runs)
    assert len(charts) == 3
    assert "Turns that search, turn 10" in charts[2]
    assert agents.family_charts([runs[1]]) == []


def test_a_metric_of_a_family_can_be_watched():
    chart = curves.chart_of("episode/tokens_hops_3")
    assert (chart.title, chart.unit, chart.percent) == (
        *("Tokens by hops, hops 3", "written"),
        False,
    )
    assert curves.chart_of("episode/calls_hops_spearman").title == "Calls with hops"
    assert agents.family_of("episode/search_turn_x") is None


def row(f1: float, two: float) -> dict:
    interval = {"mean": two, "low": two - 0.1, "high": two + 0.1}
    return {
        "name": "before",
        "split": "test",
        "sampled": {"pass@1": interval},
        "watched": {"answer_f1": {"mean": f1, "low": 0.1, "high": 0.9}},
        "by": {
            "hops": {"2": {"sampled": {"pass@1": interval}}},
            "level": {"hard": {"sampled": {"pass@1": interval}}},
        },
        "calls_mean": 1.5,
        "completion_tokens_mean": 80.0,
        "sampled_tokens_mean": 30.0,
    }


def test_rows_of_an_evaluation():
    before, after = row(0.25, 0.5), row(0.5, 0.75)
    after["by"]["hops"]["4"] = after["by"]["hops"]["2"]
    after["watched"]["evidence_recall"] = {"mean": 0.4}
    found = evaluations.measures(before, after)
    assert [line.name for line in found] == [
        *("pass@1", "F1", "evidence recall", "pass@1, hops 2", "pass@1, hops 4"),
        *("mean calls", "mean tokens", "mean tokens, written"),
    ]
    by_name = {line.name: line for line in found}
    assert by_name["F1"].change == 0.25 and by_name["F1"].is_fraction
    assert by_name["F1"].before and by_name["F1"].before.low == 0.1
    assert by_name["pass@1, hops 2"].change == 0.25
    assert by_name["pass@1, hops 4"].before is None
    assert by_name["mean calls"].change == 0 and not by_name["mean calls"].is_fraction
    html = before_after(before, after, 0.95)
    assert all(line.name in html for line in found)
