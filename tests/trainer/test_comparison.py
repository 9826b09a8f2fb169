"""Comparisons of evaluation files."""

import json
import math

import numpy as np
import pytest

from grpo_jax.trainer import comparison

RATES = [[1, 0], [1, 1], [0, 0], [1, 0], [0, 0], [1, 1]]
BETTER = [[1, 1], [1, 1], [0, 0], [1, 1], [1, 0], [1, 1]]


def write(folder, accuracy, *, name="aime24_000000", first=0, prompt="Q: {}", **more):
    """An evaluation as the trainer writes it; problems are numbered from `first`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "problem": problem,
            "sample": sample,
            "question": f"{first + problem}?",
            "prompt": prompt.format(first + problem),
            "reference": "1",
            "completion": "x",
            "accuracy": value,
            "completion_tokens": 10 + sample,
            "finished": sample == 0,
        }
        for problem, values in enumerate(accuracy)
        for sample, value in enumerate(values)
    ]
    result = {
        "name": name,
        "split": "aime24",
        "step": 0,
        "samples": len(accuracy[0]) if accuracy else 0,
        "sampling": {"temperature": 0.6},
        "sampled": {"pass@1": {"mean": 0.5}},
    } | more
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / f"{name}.json").write_text(json.dumps(result))
    return folder / f"{name}.json"


def compare(a, b, **options):
    return comparison.compare(a, b, **({"confidence": 0.95, "common": False} | options))


def test_identical_runs(tmp_path):
    (found,) = compare(write(tmp_path / "a", RATES), write(tmp_path / "b", RATES))
    assert found["difference"]["mean"] == 0 and found["p_value"] == 1
    assert found["difference"]["low"] == -found["difference"]["high"] < 0
    assert found["notes"] == [] and found["mcnemar"] is None
    assert found["a"] | {"path": ""} == found["b"] | {"path": ""}


def test_the_numbers(tmp_path):
    (found,) = compare(write(tmp_path / "a", RATES), write(tmp_path / "b", BETTER))
    rates = [np.mean(each, axis=1) for each in (RATES, BETTER)]
    assert found["problems"] == 6 and found["split"] == "aime24"
    assert found["difference"]["mean"] == pytest.approx(np.mean(rates[1] - rates[0]))
    for side, values in zip(("a", "b"), rates, strict=True):
        assert found[side]["accuracy"] == pytest.approx(values.mean())
        error = values.std(ddof=1) / math.sqrt(6)
        assert found[side]["standard_error"] == pytest.approx(error)
        assert found[side]["completion_tokens_mean"] == 10.5
        assert found[side]["truncated_fraction"] == 0.5
    # Three of three halves up: all signs alike, 2 of 2^3.
    assert found["p_value"] == 0.25 == found["p_value_holm"]
    json.dumps(found, allow_nan=False)


def test_one_sample_a_problem(tmp_path):
    a = [[row[0]] for row in RATES]
    b = [[1 - row[0]] for row in RATES]
    (found,) = compare(write(tmp_path / "a", a), write(tmp_path / "b", b))
    assert found["mcnemar"] == {"a_only": 4, "b_only": 2, "p_value": 0.6875}
    assert found["p_value"] == pytest.approx(0.6875)


def test_problems_are_found_by_what_they_ask(tmp_path):
    a = write(tmp_path / "a", RATES)
    b = write(tmp_path / "b", RATES[2:], first=2)
    with pytest.raises(ValueError) as error:
        compare(a, b)
    assert f"{a} has 6 problems and {b} 4: 4 are in both" in str(error.value)
    assert "--common compares what is in both" in str(error.value)
    (found,) = compare(a, b, common=True)
    assert found["problems"] == 4 and found["difference"]["mean"] == 0
    assert found["notes"] == ["2 problems are in one of the two only and left out"]


def test_other_prompts(tmp_path):
    a = write(tmp_path / "a", RATES)
    b = write(tmp_path / "b", RATES, prompt="Please: {}")
    with pytest.raises(ValueError, match="6 are in both, 6 of them with other prompts"):
        compare(a, b)
    (found,) = compare(a, b, common=True)
    assert found["notes"] == ["6 problems were asked with another prompt"]


@pytest.mark.parametrize("common", [False, True])
def test_other_problems(tmp_path, common):
    a = write(tmp_path / "a", RATES)
    b = write(tmp_path / "b", RATES, first=50)
    with pytest.raises(ValueError, match="0 are in both, 0 of them with other prompts"):
        compare(a, b, common=common)


def test_a_problem_that_is_there_twice_is_two(tmp_path):
    a = write(tmp_path / "a", [[1], [0]], prompt="Q")
    for path in (a, write(tmp_path / "b", [[1], [1]], prompt="Q")):
        lines = path.with_suffix(".jsonl")
        lines.write_text(lines.read_text().replace('"1?"', '"0?"'))
    (found,) = compare(a, tmp_path / "b" / "aime24_000000.json")
    assert found["problems"] == 2 and found["mcnemar"]["b_only"] == 1


def test_what_was_not_graded_is_left_out(tmp_path):
    a = write(tmp_path / "a", [[1, None], [None, None], [0, 0]])
    (found,) = compare(a, write(tmp_path / "b", [[1, 1], [1, 1], [0, 1]]))
    assert found["problems"] == 2 and found["a"]["accuracy"] == 0.5
    assert found["notes"] == ["1 problems were not graded in both and left out"]
    nothing = write(tmp_path / "c", [[None, None]] * 3)
    with pytest.raises(ValueError, match="no problem of .* was graded in both"):
        compare(a, nothing)


def test_other_settings_are_noted(tmp_path):
    a = write(tmp_path / "a", RATES)
    b = write(tmp_path / "b", [[1]] * 6, sampling={"temperature": 1.0})
    assert compare(a, b)[0]["notes"] == [
        "samples differ: 2 and 1",
        "sampling differ: {'temperature': 0.6} and {'temperature': 1.0}",
    ]


def test_workdirs_pair_the_newest_of_each_split(tmp_path):
    for run, accuracy in (("a", RATES), ("b", BETTER)):
        folder = tmp_path / run / "evaluation"
        write(folder, RATES, name="aime24_000000")
        write(folder, accuracy, name="aime24_000300", step=300)
        write(folder, accuracy, name="math500_000300", step=300, split="math500")
        write(folder, accuracy, name=f"own_{run}", split=f"own_{run}")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [each["split"] for each in found] == ["aime24", "math500"]
    assert found[0]["a"]["path"].endswith("a/evaluation/aime24_000300.json")
    assert all(each["p_value"] == 0.25 for each in found)
    assert all(each["p_value_holm"] == 0.5 for each in found)
    mixed = compare(tmp_path / "a/evaluation/aime24_000000.json", tmp_path / "b")
    assert [each["split"] for each in mixed] == ["aime24"]


def test_files_that_cannot_be_read(tmp_path):
    good = write(tmp_path / "a", RATES)
    lines = good.with_suffix(".jsonl")
    text = lines.read_text()
    for content, message in (
        ("", "aime24_000000.jsonl is empty: evaluate again"),
        (text + "{", "aime24_000000.jsonl:13 is not JSON"),
        (text + "[]", "aime24_000000.jsonl:13 holds no object"),
        (text + "{}", "aime24_000000.jsonl:13 is no graded completion"),
    ):
        lines.write_text(content)
        with pytest.raises(ValueError, match=message):
            compare(good, good)
    lines.unlink()
    with pytest.raises(FileNotFoundError, match="aime24_000000.jsonl is missing"):
        compare(good, good)
    for content, message in (
        ("", "aime24_000000.json is not JSON"),
        ('{"steps": 3}', "is no evaluation: give evaluation/NAME.json of a workdir"),
    ):
        good.write_text(content)
        with pytest.raises(ValueError, match=message):
            compare(good, good)


def test_workdirs_without_evaluations(tmp_path):
    write(tmp_path / "a" / "evaluation", RATES)
    write(tmp_path / "b" / "evaluation", RATES, split="math500")
    with pytest.raises(ValueError, match=r"of \['aime24'\] and .* of \['math500'\]"):
        compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="c does not exist: give a workdir"):
        compare(tmp_path / "a", tmp_path / "c")
    (tmp_path / "b" / "metrics.jsonl").write_text('{"step": 1}\n')
    for file in (tmp_path / "b" / "evaluation").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="holds no evaluation: run grpo_jax.ev"):
        compare(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "evaluation" / "x.json").write_text("{")
    with pytest.raises(ValueError, match="x.json is not a JSON object"):
        compare(tmp_path / "a", tmp_path / "b")


def with_parts(path, f1, hops):
    """Gives an evaluation the F1 of its samples, and its problems their hops."""
    lines = path.with_suffix(".jsonl")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    for row in rows:
        row["rewards"] = {"answer_f1": f1[row["problem"]][row["sample"]], "other": 1.0}
        if count := hops[row["problem"]]:
            row["parts"] = {"hops": count}
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = json.loads(path.read_text())
    result |= {
        "watched": {"answer_f1": {}},
        "by": {"hops": {"1": {}, "2": {}, "9": {}}},
    }
    path.write_text(json.dumps(result))


def test_rewards_and_parts_are_paired(tmp_path):
    a, b = write(tmp_path / "a", RATES), write(tmp_path / "b", BETTER)
    hops = ["1", "1", "2", "2", "2", ""]
    low = [[0.5, None], [0, 0], [0.5, 0.5], [None, None], [1, 1], [0.25, 0.75]]
    high = [[0.5, 1], [0, 0.5], [0.5, 0.5], [1, 1], [1, 1], [1, 1]]
    with_parts(a, low, hops)
    with_parts(b, high, hops)
    (found,) = compare(a, b)
    assert found["rewards"].keys() == {"answer_f1"}
    f1 = found["rewards"]["answer_f1"]
    assert (f1["problems"], f1["a"], f1["b"]) == (5, 0.5, 0.7)
    assert f1["difference"]["mean"] == pytest.approx(0.2)
    by = found["by"]["hops"]
    assert {name: each["problems"] for name, each in by.items()} == {"1": 2, "2": 3}
    assert (by["1"]["a"], by["1"]["b"]) == (0.75, 1.0)
    assert by["2"]["difference"]["mean"] == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert by["2"]["difference"]["low"] <= 1 / 3 <= by["2"]["difference"]["high"]
    # Of one evaluation without them nothing is said, and nothing fails.
    plain = write(tmp_path / "c", RATES)
    (alone,) = compare(plain, b)
    assert alone["rewards"] == {} and alone["by"] == {}
    (alone,) = compare(b, plain)
    assert alone["rewards"] == {} and alone["by"]["hops"]["2"]["problems"] == 3
