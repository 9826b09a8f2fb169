"""Comparisons as tables."""

import io
import re

from rich.console import Console

from grpo_jax.reporting.comparison import markdown, print_comparisons


def row(split: str = "aime24", **more):
    sides = {
        side: {
            "path": f"runs/{side}/evaluation/{split}_000000.json",
            "samples": 4,
            "accuracy": accuracy,
            "standard_error": 0.051,
            "completion_tokens_mean": tokens,
            "truncated_fraction": 0.125,
        }
        for side, accuracy, tokens in (("a", 0.5, 12000.4), ("b", 0.433, 900.0))
    }
    return {
        "split": split,
        "problems": 1319,
        "confidence": 0.9,
        **sides,
        "difference": {
            "mean": -0.067,
            "low": -0.1,
            "high": 0.0001,
            "standard_error": 0.03,
            "p_value": 0.0004,
            "problems_needed": 2500,
            "smallest_seen": 0.084,
        },
        "p_value": 0.0004,
        "p_value_holm": 0.0126,
        "mcnemar": None,
        "rewards": {},
        "by": {},
        "notes": [],
    } | more


def printed(rows) -> list[str]:
    file = io.StringIO()
    print_comparisons(rows, console=Console(file=file, width=40))
    return file.getvalue().splitlines()


def test_a_row():
    head, line, _, *notes = printed([row()])
    assert head.split("  ")[0] == "benchmark" and len(head) == len(line)
    assert re.split(r"\s{2,}", line) == [
        "aime24",
        "1,319",
        "4",
        "50.0 ± 5.1",
        "43.3 ± 5.1",
        "−6.7 (−10.0 to 0.0)",
        "< 0.001",
        "0.013",
        "12,000, 900",
        "12.5 %, 12.5 %",
    ]
    assert notes[0].startswith("A is runs/a/evaluation/aime24_000000.json and B is ")
    assert "the 90 % interval" in notes[0]
    assert notes[1:] == [
        "aime24: a difference of 8.4 points would be seen in 80 % of such comparisons; "
        "one of −6.7 needs 2,500 problems"
    ]


def test_several_rows_and_their_notes():
    exact = {"a_only": 7, "b_only": 2, "p_value": 0.18}
    same = row()["difference"] | {"mean": 0.0, "standard_error": 0.0}
    rows = [
        row(mcnemar=exact),
        row("own\x1b[31m", notes=["samples differ: 4 and 8"], difference=same),
    ]
    rows[1]["b"]["samples"] = 8
    lines = printed(rows)
    assert "A is runs/a and B is runs/b;" in "\n".join(lines)
    assert "aime24: only A solved 7, only B 2 (McNemar's exact p 0.180)" in lines
    assert lines[-1].endswith("samples differ: 4 and 8") and "4, 8" in lines[2]
    assert not any("\x1b" in line for line in lines)
    assert not any(line.startswith("own") and "80 %" in line for line in lines)


def test_one_problem_has_no_error():
    alone = row()
    alone["a"]["standard_error"] = alone["difference"]["standard_error"] = None
    alone["difference"]["smallest_seen"] = None
    assert "  50.0  43.3 ± 5.1" in printed([alone])[1]


def test_markdown():
    head, rule, line, empty, note, *_ = markdown([row()]).split("\n")
    assert head.count("|") == rule.count("|") == line.count("|") == 11
    assert line.startswith("| aime24 | 1,319 | 4 | 50.0 ± 5.1 | 43.3 ± 5.1 |")
    assert empty == "" and note.startswith("- A is ")


def test_lines_of_rewards_and_parts():
    change = row()["difference"] | {"mean": 0.1, "low": -0.05, "high": 0.25}
    part = {"problems": 40, "a": 0.25, "b": 0.35, "difference": change}
    whole = row(rewards={"answer_f1": part}, by={"hops": {"2": part}, "level": {}})
    head, _, f1, hops, *_ = printed([whole])
    cells = ["40", "25.0", "35.0", "+10.0 (−5.0 to +25.0)"]
    assert re.split(r"\s{2,}", f1.strip()) == ["aime24, F1", *cells]
    assert re.split(r"\s{2,}", hops.strip()) == ["aime24, hops 2", *cells]
    assert len(f1) == len(hops) == len(head)
    lines = markdown([whole]).split("\n")
    assert {line.count("|") for line in lines[:5]} == {11}
