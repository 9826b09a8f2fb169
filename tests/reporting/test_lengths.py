"""Accuracy by length and tokens of an evaluation, on the page and in the terminal."""

import io
import json

from rich.console import Console

from grpo_jax.reporting import curves, evaluations, terminal
from grpo_jax.reporting.workdir import read_run

POINTS = [{"tokens": 8, "accuracy": 0.1}, {"tokens": 64, "accuracy": 0.5}]


def evaluated(path, *names: str, split: str = "aime24", points=POINTS):
    """A workdir that holds nothing but evaluations."""
    (path / "evaluation").mkdir(parents=True, exist_ok=True)
    for step, name in enumerate(names):
        row = {
            "name": name,
            "split": split,
            "step": step,
            "sampled": {"pass@1": {"mean": 0.5, "low": 0.4, "high": 0.6}},
            "tokens_mean": {"all": 40.0, "right": 30.0, "wrong": None},
            "contamination": {"clean": {"mean": 0.25, "low": 0.2, "high": 0.3}},
            "accuracy_by_length": points,
        }
        (path / "evaluation" / f"{name}.json").write_text(json.dumps(row))
    return read_run(path)


def charts(*runs):
    return dict(curves.sections(runs)).get("Accuracy by length", [])


def test_one_run_shows_its_first_and_last(tmp_path):
    run = evaluated(tmp_path / "a", "a_000000", "a_000001", "a_000002")
    (chart,) = charts(run)
    assert "pass@1 within a length" in chart and "aime24" in chart and "tokens" in chart
    assert "step 0" in chart and "step 2" in chart and "step 1<" not in chart
    (alone,) = charts(evaluated(tmp_path / "b", "b_000000"))
    assert alone.count('class="strong"') == 1


def test_several_runs_show_their_last_in_their_colour(tmp_path):
    runs = [
        evaluated(tmp_path / "other", "x", split="math500"),
        evaluated(tmp_path / "base", "x_000000", "x_000001"),
        evaluated(tmp_path / "mine", "x_000000"),
    ]
    of_math, of_aime = charts(*runs)
    assert "math500" in of_math and "aime24" in of_aime
    assert "base" in of_aime and "mine" in of_aime
    assert of_aime.count('class="strong"') == 2
    assert 'class="c1"' in of_aime and 'class="c2"' in of_aime


def test_odd_points_are_left_out(tmp_path):
    odd = [*POINTS, {"tokens": 9}, {"tokens": 9, "accuracy": None}, 3]
    assert charts(evaluated(tmp_path / "a", "a", points=odd))
    assert charts(evaluated(tmp_path / "b", "b", points="no")) == []


def test_measures(tmp_path):
    row = evaluated(tmp_path / "a", "a").evaluations[0]
    found = {line.name: line.after for line in evaluations.measures(None, row)}
    assert found["mean tokens, right"] == evaluations.Estimate(30.0)
    assert "mean tokens, wrong" not in found
    assert found["pass@1, clean"] == evaluations.Estimate(0.25, 0.2, 0.3)
    file = io.StringIO()
    terminal.print_evaluation(row, console=Console(file=file, width=80))
    assert "pass@1, clean" in file.getvalue() and "25.0%" in file.getvalue()
