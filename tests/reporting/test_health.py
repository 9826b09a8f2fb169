"""The page's section on tripwires and monitors."""

import json
import re

import pytest

from grpo_jax.reporting import health
from grpo_jax.reporting.page import write_report
from grpo_jax.reporting.workdir import read_run
from tests.reporting.conftest import write_json, write_rows

TRUNCATED = "rollout/truncated_fraction"
DUMP = "000007_warn_above_rollout-truncated_fraction.jsonl"


def event(step, kind, **changes):
    line = {
        "step": step,
        "event": kind,
        "action": "warn",
        "side": "above",
        "metric": TRUNCATED,
        "bound": 0.5,
        "values": [0.625, 0.75],
        "dump": "",
    }
    return line | changes


def watched(workdir, *events):
    """A run with rules, monitors and a record."""
    config = json.loads((workdir / "config.json").read_text())
    config["monitor"] = {"warn_above": {TRUNCATED: 0.5}, "stop_below": {TRUNCATED: -1}}
    write_json(workdir / "config.json", config)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    for row in rows:
        row["reward_std_in_group/format"] = 0.1
        row["loss/kl_p95"] = 0.5
        row["rollout/script_fraction"] = None
    write_rows(workdir / "metrics.jsonl", rows)
    write_rows(workdir / "tripwires.jsonl", list(events))
    (workdir / "tripped").mkdir()
    (workdir / "tripped" / DUMP).write_text("{}\n")
    return read_run(workdir)


def titles(text):
    return re.findall(r'aria-label="([^:"]*)', text)


def cells(text):
    rows = re.findall(r"<tr>(.*?)</tr>", text)[1:]
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in rows]


def test_what_is_watched_comes_first_with_bounds_and_trips(make_workdir):
    run = watched(
        make_workdir(),
        event(7, "tripped"),
        event(9, "tripped"),
        event(9, "tripped", metric="policy/entropy"),  # by a rule that was taken out
    )
    text = health.section([run], run.path)
    assert titles(text) == [
        "Reward over length",
        "Truncated completions",
        "Entropy",
        "KL",
        "Format spread",
    ]
    assert len(re.findall('class="bound warn"', text)) == 1
    assert len(re.findall('class="bound stop"', text)) == 1
    assert len(re.findall('class="trip"', text)) == 3


def test_the_table_of_trips(make_workdir):
    run = watched(
        make_workdir(),
        event(7, "tripped", dump=DUMP),
        event(9, "tripped", metric="<b>", action="stop", values=[None, 2]),
        event(11, "recovered"),
        event(13, "tripped", dump="../config.json"),
        event(14, "recovered", bound=0.7),
    )
    text = health.section([run], run.path)
    assert "tripped 3 times; 1 of them stopped the run" in text
    rule = "warn: rollout/truncated_fraction above 0.5"
    link = f'<a href="tripped/{DUMP}">completions</a>'
    assert cells(text) == [
        ["7", rule, "0.625, 0.75", "11", link],
        ["9", "stop: &lt;b&gt; above 0.5", "not finite, 2", "", ""],
        ["13", rule, "0.625, 0.75", "", ""],
    ]


def test_links_start_where_the_page_lies(tmp_path, make_workdir):
    run = watched(make_workdir("a run"), event(7, "tripped", dump=DUMP))
    output = tmp_path / "deep" / "out" / "report.html"
    write_report([run.path], output)
    assert f'href="../../a%20run/tripped/{DUMP}"' in output.read_text()
    assert (output.parent / f"../../a run/tripped/{DUMP}").is_file()


def test_a_run_without_trips(make_workdir):
    run = read_run(make_workdir())
    text = health.section([run], run.path)
    assert "No tripwire has tripped." in text and "<table" not in text
    assert titles(text) == ["Reward over length"]  # no monitors in its metrics


def test_several_runs_share_charts(make_workdir):
    runs = [
        watched(make_workdir("one", rollout_every=7), event(7, "tripped")),
        watched(make_workdir("two"), event(8, "tripped")),
    ]
    text = health.section(runs, runs[0].path)
    assert [row[0].rpartition(">")[2] for row in cells(text)] == ["one", "two"]
    assert len(re.findall('class="trip"', text)) == 2
    assert len(re.findall('class="bound', text)) == 2  # the same of both
    assert "step 29, 30; rings were cut" in text


@pytest.mark.parametrize("row", [{}, {"event": "tripped", "step": [], "values": 1}])
def test_a_record_that_makes_no_sense_stops_no_report(make_workdir, row):
    run = watched(make_workdir(), row)
    assert health.section([run], run.path)
