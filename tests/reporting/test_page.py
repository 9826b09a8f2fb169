"""The HTML page, parsed."""

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from grpo_jax.reporting import groups
from grpo_jax.reporting.page import page, write_report
from grpo_jax.reporting.workdir import read_run

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """Collects elements and text, and checks that tags are balanced."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.text.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())

    @property
    def groups(self) -> list:
        return json.loads(self.scripts[0])


def write(tmp_path, *workdirs) -> tuple[Page, str]:
    output = tmp_path / "out" / "report.html"
    write_report(workdirs, output)
    text = output.read_text()
    assert [file.name for file in output.parent.iterdir()] == ["report.html"]
    return Page(text), text


def charts(text: str) -> list[str]:
    found = re.findall(r'<svg class="chart".*?</svg>', text, re.S)
    titles = []
    for svg in found:
        root = ElementTree.fromstring(svg)
        titles.append(root.attrib["aria-label"].partition(":")[0])
    return titles


def test_a_finished_run(tmp_path, make_workdir):
    parsed, text = write(tmp_path, make_workdir("first"))
    for expected in (
        "first finished",
        "miniature on arithmetic · grpo loss · 32 prompts × 8 completions a step",
        "512 test problems · 4 samples each · small: 95% interval",
        "rollout 3 min 8 s",
        "optimizer.learning_rate 1e-05",
        "18.2k",
    ):
        assert expected in parsed.said
    # before, its interval, after, its interval, the change
    assert re.search(
        r"pass@1 32\.5% 29\.4 to 35\.4 86\.3% .* \+53\.8 points", parsed.said
    )
    titles = charts(text)
    for expected in (
        *("Reward", "pass@1", "Accuracy reward", "Format reward", "Completion length"),
        *("Truncated completions", "Entropy", "KL to the reference", "Clipped tokens"),
        *("Gradient norm", "Learning rate", "Rollout speed", "Warm-start loss"),
        "Guidance length",
    ):
        assert expected in titles
    assert len(titles) == len(set(titles))


def test_no_network_is_needed(tmp_path, make_workdir):
    parsed, text = write(tmp_path, make_workdir())
    assert not re.search(r"https?://", text)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text


def test_only_the_page_s_own_script_may_run(tmp_path, make_workdir):
    parsed, text = write(tmp_path, make_workdir())
    data, script = [a for tag, a in parsed.elements if tag == "script"]
    assert data["type"] == "application/json"
    assert script == {}
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest())
    [policy] = [
        a["content"]
        for tag, a in parsed.elements
        if tag == "meta" and "http-equiv" in a
    ]
    assert f"script-src 'sha256-{digest.decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "innerHTML" not in text


EVIL = (
    "</script><script>alert(1)</script><!--<script>\u2028<img src=x onerror=alert(1)>"
)


def test_completions_are_only_text(tmp_path, make_workdir):
    parsed, text = write(tmp_path, make_workdir(completion=EVIL))
    assert [tag for tag, _ in parsed.elements].count("script") == 2
    assert "<img" not in text
    assert "alert(1)</script>" not in text
    assert parsed.groups[0]["steps"][0]["groups"][0]["rows"][0]["text"] == EVIL


def test_names_and_configuration_are_only_text(tmp_path, make_workdir):
    workdir = make_workdir('<script>alert("x")')
    (workdir / "config.json").write_text(json.dumps({"<script>": {"x": EVIL}}))
    row = {"name": EVIL, "split": EVIL, "step": 99, "sampled": {EVIL: {"mean": 0.5}}}
    (workdir / "evaluation" / "x.json").write_text(json.dumps(row))
    row = {"name": "after", "split": EVIL, "step": 30, "sampled": {EVIL: 0.5}}
    (workdir / "evaluation" / "after.json").write_text(json.dumps(row))
    (workdir / "metrics.jsonl").write_text(json.dumps({"step": 1, EVIL: 2.0}) + "\n")
    (workdir / "summary.json").write_text(json.dumps({"stopped": EVIL}))
    parsed, text = write(tmp_path, workdir)
    assert [tag for tag, _ in parsed.elements].count("script") == 2
    assert "<img" not in text
    assert not any(name.startswith("on") for _, a in parsed.elements for name in a)


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path, make_workdir):
    parsed, _ = write(tmp_path, make_workdir(completion="a\ud800b"))
    assert parsed.groups[0]["steps"][0]["groups"][0]["rows"][0]["text"] == "a\ud800b"


def test_a_run_in_progress(tmp_path, make_workdir):
    parsed, _ = write(tmp_path, make_workdir(ended=False))
    assert "in progress" in parsed.said
    assert "before" in parsed.said


def test_a_run_that_was_stopped_says_why(tmp_path, make_workdir):
    workdir = make_workdir()
    (workdir / "summary.json").write_text('{"stopped": "time budget"}')
    assert "stopped: time budget" in write(tmp_path, workdir)[0].said


@pytest.mark.parametrize(
    "absent",
    ["config.json", "metrics.jsonl", "warm_start.jsonl", "summary.json"]
    + ["rollouts", "evaluation"],
)
def test_any_file_may_be_missing(tmp_path, make_workdir, absent):
    workdir = make_workdir()
    target = workdir / absent
    if target.is_dir():
        for file in target.iterdir():
            file.unlink()
        target.rmdir()
    else:
        target.unlink()
    parsed, text = write(tmp_path, workdir)
    assert charts(text)
    if absent == "rollouts":
        assert "No completions were written" in parsed.said
    if absent == "evaluation":
        assert "No evaluation has been made yet" in parsed.said


def test_one_line_of_metrics_is_enough(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "reward/mean": 0.5, "loss/kl": null, "evaluation/pass@1": 0.4}'
    )
    parsed, text = write(tmp_path, tmp_path)
    assert charts(text) == ["Reward", "pass@1"]
    assert "config.json is absent" in parsed.said


def test_damaged_lines_are_told(tmp_path, make_workdir):
    workdir = make_workdir()
    with open(workdir / "rollouts" / "1.jsonl", "a") as file:
        file.write('not json\n{"group": 0}\n')
    parsed, _ = write(tmp_path, workdir)
    assert re.search(r"1\.jsonl: line 13 is not a JSON object", parsed.said)


def test_odd_types_do_not_stop_the_report(tmp_path, make_workdir):
    workdir = make_workdir()
    row = {"group": None, "rewards": [1], "reward": "x", "spans": [[1], 2], "prompt": 3}
    (workdir / "rollouts" / "1.jsonl").write_text(json.dumps(row) + "\n")
    (workdir / "evaluation" / "after.json").write_text('{"sampled": 3, "greedy": [1]}')
    (workdir / "summary.json").write_text('{"seconds": 3, "evaluation": []}')
    parsed, _ = write(tmp_path, workdir)
    assert parsed.groups[0]["steps"][0]["groups"][0]["rows"][0]["reward"] is None


def test_several_runs_share_charts_and_a_table(tmp_path, make_workdir):
    first, second = make_workdir("one"), make_workdir("two", seed=1, ended=False)
    parsed, text = write(tmp_path, first, second)
    assert "2 runs compared" in parsed.said
    assert re.search(r"one 32\.5% .* two in progress", parsed.said)
    assert "What differs one two seed 0 1" in parsed.said
    assert charts(text).count("Reward") == 1
    reward = re.findall(r'<svg class="chart".*?</svg>', text, re.S)[0]
    assert 'class="c0"' in reward and 'class="c1"' in reward
    assert [run["name"] for run in parsed.groups] == ["one", "two"]


def test_groups_hold_every_reward(make_workdir):
    run = read_run(make_workdir(steps=2))
    [found] = groups.embedded_groups([run], [])
    assert [step["step"] for step in found["steps"]] == [1, 2]
    assert found["left_out"] == ""
    rows = found["steps"][0]["groups"][2]["rows"]
    assert len(rows) == 4
    assert set(rows[0]) == {
        *("text", "rewards", "reward", "advantage", "tokens", "finished", "origins")
    }
    assert rows[3]["rewards"]["format"] is None
    assert rows[0]["origins"] == ""
    assert rows[1]["origins"] == "guidance 4, sampled 19"


def test_groups_are_capped_evenly_and_it_is_said(tmp_path, make_workdir):
    workdir = make_workdir(steps=90, groups=12)
    parsed, _ = write(tmp_path, workdir)
    [run] = parsed.groups
    steps = [step["step"] for step in run["steps"]]
    assert (steps[0], steps[-1], len(steps)) == (1, 90, 25)
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= 4
    assert sum(len(step["groups"]) for step in run["steps"]) == groups.MAX_GROUPS
    assert "25 of 90 steps, evenly spaced" in run["left_out"]
    assert "8 of about 12 groups of each step" in run["left_out"]


def test_long_texts_keep_both_ends(make_workdir, monkeypatch):
    workdir = make_workdir(steps=1, groups=1, completion="a" * 9000 + "<answer>")
    [run] = groups.embedded_groups([read_run(workdir)], [])
    text = run["steps"][0]["groups"][0]["rows"][0]["text"]
    assert len(text) < 8100
    assert text.startswith("aaa") and text.endswith("<answer>")
    assert "8,000 characters" in run["left_out"]
    monkeypatch.setattr(groups, "MAX_CHARACTERS", 5000)
    [run] = groups.embedded_groups([read_run(workdir)], [])
    assert len(run["steps"][0]["groups"][0]["rows"][0]["text"]) < 1100


def test_the_page_is_the_same_every_time(tmp_path, make_workdir):
    runs = [read_run(make_workdir(steps=3))]
    assert page(runs, tmp_path) == page(runs, tmp_path)


def test_no_workdir_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "x.html")
