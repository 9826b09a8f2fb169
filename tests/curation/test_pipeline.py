"""The stages together: what is written, and that a second run goes on."""

import dataclasses
import json

import pyarrow.parquet
import pytest

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.curation import answers, output, pipeline
from grpo_jax.curation.pass_rates import Policy
from grpo_jax.curation.problems import Problem, Solved
from grpo_jax.curation.reading import Columns, parse_source
from grpo_jax.curation.settings import parse_bands, parse_mixture
from grpo_jax.reporting import curation
from grpo_jax.tasks import math
from tests.curation import helpers
from tests.curation.helpers import ROWS, curate, problem, read_lines, write_lines

BENCHMARK = {"question": "Что больше: $2^5$ или $5^2$"}


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """Checking answers has its own test; it is counted here."""
    calls = []
    judge = lambda rows: [calls.append(len(rows))] and [None] * len(rows)  # noqa: E731
    monkeypatch.setattr(answers, "gradable", judge)
    return calls


@pytest.fixture
def settings(tmp_path):
    benchmark = write_lines(tmp_path / "aime.jsonl", [BENCHMARK])
    return helpers.settings(
        tmp_path,
        benchmarks=(parse_source(str(benchmark)),),
        columns=Columns(difficulty="level"),
    )


def test_what_is_written(settings, tmp_path):
    assert curate(settings) == [
        {
            "question": ROWS[index]["question"],
            "answer": str(ROWS[index]["answer"]),
            "solution": "",
            "source": "raw",
            "row": f"{tmp_path}/raw.jsonl:{index + 1}",
            "difficulty": level,
            "tier": ["easy", "hard"].index(level),
        }
        for index, level in enumerate(["easy", "easy", "hard"])
    ]
    dropped = read_lines(tmp_path / "out" / "dropped.jsonl")
    assert [(row["stage"], row["reason"]) for row in dropped] == [
        ("noise", "proof"),
        ("duplicates", "duplicate"),
        ("benchmarks", "in_aime"),
    ]
    assert dropped[1]["collides_with"] == f"{tmp_path}/raw.jsonl:1"
    assert dropped[2]["collides_with"] == f"{tmp_path}/aime.jsonl:1"
    assert dropped[2]["question"] == ROWS[3]["question"]
    stages = sorted(path.name for path in (tmp_path / "out" / "stages").iterdir())
    names = ("readable", "answer", "noise", "duplicates", "near_duplicates")
    assert stages == [
        f"{number:02d}_{name}.jsonl"
        for number, name in enumerate([*names, "benchmarks"], start=1)
    ]
    noise = read_lines(tmp_path / "out" / "stages" / stages[2])
    assert (noise[0]["kept"], noise[0]["dropped"], len(noise)) == (5, 1, 7)


def test_the_math_task_reads_it(settings):
    rows = curate(dataclasses.replace(settings, mixture={"hard": 1, "easy": 2}))
    assert [row["tier"] for row in rows] == [1, 1, 0]
    config = TaskConfig(
        name="math",
        train_path=str(settings.output / "data.jsonl"),
        solution_column="solution",
        tier_column="tier",
    )
    task = math.math(config, RewardConfig())
    assert [each.reference for each in task.train] == ["2", "0", "3"]
    assert [each.tier for each in task.train] == [1, 1, 0]


def test_parquet(settings):
    rows = curate(settings)
    path = output.write(
        dataclasses.replace(settings, format="parquet"), pipeline.run(settings)
    )
    assert pyarrow.parquet.read_table(path).to_pylist() == rows
    assert not (settings.output / "data.jsonl").exists()


def test_a_second_run_goes_on(settings, no_processes):
    curate(settings)
    before = (settings.output / "data.jsonl").read_bytes()
    (settings.output / "stages" / "05_near_duplicates.jsonl").unlink()
    judged = pipeline.run(settings)
    assert [stage.reused for stage in judged] == [False, *[True] * 3, False, True]
    assert no_processes == [6]
    output.write(settings, judged)
    assert (settings.output / "data.jsonl").read_bytes() == before


def reused(settings) -> list[str]:
    return [stage.name for stage in pipeline.run(settings) if stage.reused]


def test_changed_settings_redo_what_they_affect(settings, tmp_path):
    curate(settings)
    assert reused(settings)[-1] == "benchmarks"
    less = dataclasses.replace(settings, near_duplicate=0.7)
    assert reused(less) == ["answer", "noise", "duplicates"]
    write_lines(tmp_path / "aime.jsonl", [BENCHMARK, {"question": "1+1"}])
    assert reused(less)[-1] == "near_duplicates"
    off = dataclasses.replace(settings, near_duplicate=0.0)
    assert reused(off) == ["answer", "noise", "duplicates"]
    files = {path.name for path in (settings.output / "stages").iterdir()}
    assert files >= {"05_benchmarks.jsonl"}
    assert not files & {"05_near_duplicates.jsonl", "06_benchmarks.jsonl"}
    write_lines(tmp_path / "raw.jsonl", [*ROWS, ROWS[0]])
    assert reused(off) == []


def test_two_runs_are_equal(settings, tmp_path):
    settings = dataclasses.replace(settings, mixture={"easy": 1, "hard": 1})
    curate(settings)
    other = dataclasses.replace(settings, output=tmp_path / "other")
    curate(other)
    for name in ("data.jsonl", "dropped.jsonl"):
        one = (settings.output / name).read_bytes()
        assert one == (other.output / name).read_bytes()


def test_nothing_is_left(settings, tmp_path):
    curate(settings)
    write_lines(tmp_path / "raw.jsonl", [ROWS[4], ROWS[4], {**ROWS[0], "question": ""}])
    with pytest.raises(ValueError, match="every row .* most is 'noise' .2 of 2."):
        curate(settings)
    assert not (settings.output / "data.jsonl").exists()
    assert len(read_lines(settings.output / "dropped.jsonl")) == 3


def test_mistakes_are_told_before_the_slow_stages(settings, no_processes, tmp_path):
    for wrong, message in (
        ({"mixture": {"medium": 1}}, "'easy' .3., 'hard' .3."),
        ({"mixture": {"easy": 4}}, "asks for 4 .* and 3 are left"),
        ({"benchmarks": (parse_source(str(tmp_path / "no.jsonl")),)}, "does not exist"),
        ({"tokenizer": str(tmp_path / "no"), "max_prompt_tokens": 1}, "no"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            pipeline.run(dataclasses.replace(settings, **wrong))
    assert no_processes == []
    with pytest.raises(ValueError, match="asks for 3 .* 'easy' and 2 are left"):
        pipeline.run(dataclasses.replace(settings, mixture={"easy": 3}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": ()}, "--input is missing"),
        ({"max_prompt_tokens": 9}, "set --tokenizer"),
        ({"tokenizer": "x"}, "set --max_prompt_tokens or"),
        ({"min_pass_rate": 0.1}, "set --pass_rate_samples and --config"),
        ({"difficulty_bands": {"hard": 0.0}}, "set --pass_rate_samples and --config"),
        (
            {"pass_rate_samples": 4, "min_pass_rate": 0.5, "max_pass_rate": 0.4},
            "--min_pass_rate is 0.5 and --max_pass_rate 0.4",
        ),
        (
            {
                "pass_rate_samples": 4,
                "difficulty_bands": {"hard": 0.0},
                "mixture": {"easy": 1},
            },
            r"difficulty 'easy': --difficulty_bands names \['hard'\]",
        ),
    ],
)
def test_settings_that_do_not_agree(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        helpers.settings(tmp_path, **wrong)


def test_labels_of_inputs_are_difficulties(tmp_path):
    few = write_lines(tmp_path / "few.jsonl", ROWS[:3])
    more = write_lines(tmp_path / "more.jsonl", ROWS[3:5])
    rows = curate(
        helpers.settings(
            tmp_path,
            inputs=(parse_source(f"{few}=easy"), parse_source(f"{more}=hard")),
            mixture={"hard": 1, "easy": 2},
        )
    )
    assert [(row["difficulty"], row["tier"]) for row in rows] == [
        ("easy", 1),
        ("easy", 1),
        ("hard", 0),
    ]


def test_mixture_flag():
    assert parse_mixture('{"easy": 1, "4": 2}') == {"easy": 1, "4": 2}
    assert parse_mixture("") == {}
    for text in ("{easy: 1}", "[1]", '{"easy": 0}', '{"easy": true}', '{"a": 1.5}'):
        with pytest.raises(ValueError, match="--mixture is"):
            parse_mixture(text)


def test_bands_flag():
    bands = parse_bands('{"hard": 0, "easy": 0.75, "medium": 0.25}')
    assert list(bands.items()) == [("easy", 0.75), ("medium", 0.25), ("hard", 0)]
    assert parse_bands("") == {}
    for text in ("x", "[0]", '{"a": 0, "b": 0}', '{"a": 2}', '{"a": true, "b": 0}'):
        with pytest.raises(ValueError, match="--difficulty_bands is"):
            parse_bands(text)
    with pytest.raises(ValueError, match="one label must begin at 0"):
        parse_bands('{"a": 0.5}')


def policy_of(rates: dict[str, Solved]) -> Policy:
    """Solves questions as given, and those that are not given never."""

    def solve(problems: list[Problem]) -> list[Solved]:
        return [rates.get(each.question, Solved(0, 4, 4)) for each in problems]

    return Policy("a policy", {"samples": 4}, solve, at_once=2)


def test_pass_rates_decide(settings):
    settings = dataclasses.replace(
        settings,
        pass_rate_samples=4,
        min_pass_rate=0.2,
        difficulty_bands={"easy": 0.75, "hard": 0.0},
        mixture={"hard": 1, "easy": 1},
    )
    first, second, third = (ROWS[index]["question"] for index in range(3))
    rates = {first: Solved(1, 4, 4), second: Solved(2, 2, 4)}
    judged = pipeline.run(settings, policy_of(rates))
    output.write(settings, judged)
    rows = read_lines(settings.output / "data.jsonl")
    names = ("question", "pass_rate", "samples", "difficulty", "tier")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (first, 0.25, 4, "hard", 1),
        (second, 1.0, 2, "easy", 0),
    ]
    (dropped,) = [
        row
        for row in read_lines(settings.output / "dropped.jsonl")
        if row["stage"] == "pass_rates"
    ]
    assert (dropped["question"], dropped["reason"]) == (third, "too_hard")
    assert dropped["evidence"] == "0 of 4 samples are right"
    facts = output.facts(settings, judged, "", policy_of({}))
    bins = {each["pass_rate"]: each["measured"] for each in facts["pass_rates"]}
    assert {name: count for name, count in bins.items() if count} == {
        "0": 1,
        "0.2 to 0.4": 1,
        "1": 1,
    }
    card = curation.card(facts)
    assert "| 0 | 1 | 0 |" in card
    assert "| 0.2 to 0.4 | 1 | 1 |" in card
    assert '"name": "a policy"' in card
    # Other limits judge again, and sample nothing.
    idle = dataclasses.replace(policy_of({}), solve=lambda problems: 1 / 0)
    other = dataclasses.replace(settings, min_pass_rate=0.0, mixture={})
    stages = {stage.name: stage for stage in pipeline.run(other, idle)}
    assert not stages["pass_rates"].reused
    assert len(stages["pass_rates"].kept) == 3


def test_all_options_together(tmp_path):
    rows = [
        {"question": f"What is {i}+{i}?", "answer": i, "solution": rf"\boxed{{{i}}}"}
        for i in range(20)
    ]
    write_lines(tmp_path / "raw.jsonl", [*rows, {**rows[0], "solution": "0"}])
    settings = helpers.settings(
        tmp_path,
        require_boxed=True,
        tokenizer="characters",
        max_prompt_tokens=20,
        max_solution_tokens=40,
    )
    assert len(curate(settings)) == 20


def test_the_card(settings, tmp_path):
    settings = dataclasses.replace(settings, output=tmp_path / "out")
    bad = problem("[31m|pipe| `code`\n```\n# heading", answer="B")
    write_lines(
        tmp_path / "raw.jsonl",
        [*ROWS, {"question": bad.question, "answer": "B", "level": "hard"}, "{"],
    )
    judged = pipeline.run(settings)
    command = "python -m grpo_jax.curate --input=x"
    facts = output.facts(settings, judged, command)
    card = curation.card(facts)
    again = output.facts(settings, pipeline.run(settings), command)
    assert card == curation.card(again)
    assert "3 of 8 problems are left." in card
    assert "    python -m grpo_jax.curate --input=x" in card
    assert "| readable | 1 | 7 | 7 |" in card
    assert "| benchmarks | in_aime | 1 |" in card
    assert f"collides with {tmp_path}/aime.jsonl:1" in card
    assert "\n    # heading" in card
    assert '"ngram": 8' in card
    assert "| easy | 2 |" in card
    json.dumps(facts)


def test_the_terminal(settings, capsys):
    facts = output.facts(settings, pipeline.run(settings), "")
    curation.print_counts(facts)
    printed = capsys.readouterr().out
    assert "proof 1" in printed
    assert "difficulty hard: 1" in printed
    curation.print_counts(output.facts(settings, pipeline.run(settings), ""))
    assert "as before" in capsys.readouterr().out
