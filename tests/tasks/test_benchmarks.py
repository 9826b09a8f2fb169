"""Benchmarks: how they are named and read; samples written for these tests."""

import json

import pytest

from grpo_jax import choices
from grpo_jax.config import RewardConfig
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.math import verify_math
from grpo_jax.tasks import benchmarks
from grpo_jax.tasks.benchmarks import BENCHMARKS, parse, read


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def gold(tmp_path, name, answer, **more):
    row = {"question": "What is it?", "answer": answer, **more}
    file = write(tmp_path / "rows.jsonl", [row])
    return read(parse(f"{name}={file}"))[0].reference


def test_names():
    assert parse("aime24") == BENCHMARKS["aime24"]
    mine = parse("math500=/data/math.jsonl")
    assert (mine.location, mine.problems) == ("/data/math.jsonl", 500)
    own = parse("my-set.1=hub:me/set:test")
    assert (own.name, own.location, own.problems) == ("my-set.1", "hub:me/set:test", 0)
    both = benchmarks.parse_all(["aime24", "own=a=b.jsonl"])
    assert [each.location for each in both][1] == "a=b.jsonl"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["aime26"],
            "no benchmark 'aime26'; use one of aime24, aime25, amc23, math500",
        ),
        (["problems.jsonl"], "or label=FILE for problems of your own"),
        (["a/b=file"], "write NAME, NAME=FILE or label=FILE"),
        (["aime24="], "write NAME, NAME=FILE or label=FILE"),
        (["aime24", "aime24=x.jsonl"], "names 'aime24' twice"),
    ],
)
def test_names_that_cannot_be(texts, message):
    with pytest.raises(ValueError, match="--benchmarks") as error:
        benchmarks.parse_all(texts)
    assert message in str(error.value)


def test_every_benchmark_is_whole():
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name and benchmark.location.startswith("hub:")
        assert benchmark.problems * benchmark.samples >= 1000
    assert benchmarks.PROMPT.count("{question}") == 1
    assert "\\boxed{}" in benchmarks.PROMPT


@pytest.mark.parametrize(
    ("name", "answer", "reference"),
    [
        ("aime24", "033", "33"),
        ("aime25", "000", "0"),
        ("aime25", 70, "70"),
        ("amc23", 27.0, "27"),
        ("amc23", "-1", "-1"),
        ("math500", "\\frac{3}{4}", "\\frac{3}{4}"),
        ("gsm8k", "5 + 7 = 12\n#### 1,012", "1012"),
        ("minerva", "np.arcsin(3/4)", "\\arcsin(3/4)"),
        ("minerva", "a \\cos (t)+$ $\\sin (t)", "a \\cos (t)+\\sin (t)"),
        ("minerva", "2.5e-7", "2.5e-7"),
        ("olympiadbench", ["$2$"], "$2$"),
        ("olympiadbench", ["$x=1$", "$x=-1$"], "$x=1$, $x=-1$"),
        ("olympiadbench", "$(1,2),(3,4)$", "$(1,2),(3,4)$"),
    ],
)
def test_golds(tmp_path, name, answer, reference):
    assert gold(tmp_path, name, answer) == reference
    # What equals itself can be right.
    assert verify_math(f"\\boxed{{{reference}}}", reference) is True


@pytest.mark.parametrize(
    ("name", "answer", "said", "right"),
    [
        ("aime24", "033", "33", True),
        ("minerva", "2.5e-7", r"2.5 \times 10^{-7} \text{ m}", True),
        ("minerva", "2.5e-7", "2.5e-8", False),
        ("minerva", "np.arcsin(3/4)", r"\sin^{-1}\left(\frac34\right)", True),
        ("olympiadbench", ["$2$", "$-3$"], "-3, 2", True),
        ("olympiadbench", ["$2$", "$-3$"], "2", False),
        ("olympiadbench", "$(1,2),(3,4)$", "(3,4), (1,2)", True),
        ("gsm8k", "so\n#### 70,000", r"\$70000", True),
    ],
)
def test_what_counts_as_right(tmp_path, name, answer, said, right):
    reference = gold(tmp_path, name, answer)
    assert verify_math(f"so \\boxed{{{said}}}", reference) is right


def test_columns_of_other_names(tmp_path):
    rows = [{"Problem": "1+1?", "Answer": 2}, {"Problem": "2+2?", "Answer": "4"}]
    examples = read(parse(f"own={write(tmp_path / 'a.jsonl', rows)}"))
    assert [(e.id, e.question, e.reference) for e in examples] == [
        (0, "1+1?", "2"),
        (1, "2+2?", "4"),
    ]
    rows = [{"problem": "1+1?", "solution": "It is \\boxed{2}.", "level": 1}]
    examples = read(parse(f"own={write(tmp_path / 'b.jsonl', rows)}"))
    assert examples[0].reference == "2" and examples[0].columns["level"] == 1


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("own", [{"text": "a"}], "has no column 'question' or 'problem' or"),
        ("own", [{"question": "a"}], "'Answer' or 'solution': rename one of its"),
        ("own", [{"question": "", "answer": "1"}], "row 0 (from 0): column 'question'"),
        ("own", [{"question": "a", "answer": ""}], "it must state an answer"),
        ("own", [{"question": "a", "answer": {"x": 1}}], "it must be text, a number"),
        ("own", [{"question": "a", "solution": "2"}], "it must state an answer"),
        ("aime24", [{"question": "a", "answer": "1/2"}], "a whole number from 0 to"),
        ("own", [], "holds no row"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, name, rows, message):
    with pytest.raises(ValueError) as error:
        read(parse(f"{name}={write(tmp_path / 'a.jsonl', rows)}"))
    assert message in str(error.value) and "a.jsonl" in str(error.value)


def test_training_questions(tmp_path):
    rows = [{"problem": "1+1?"}, {"problem": None}]
    assert benchmarks.questions(str(write(tmp_path / "t.jsonl", rows))) == ["1+1?"]
    with pytest.raises(ValueError, match="has no column 'question'"):
        benchmarks.questions(str(write(tmp_path / "t.jsonl", [{"x": "1+1?"}])))


HOTPOT = {
    "_id": "x1",
    "question": "Who leads the town of the inn?",
    "answer": "Bo Lin",
    "level": "hard",
    "type": "bridge",
    "context": [
        ["Inn", ["It is in Rook."]],
        ["Rook", ["Led by Bo Lin."]],
        ["C", ["-"]],
    ],
    "supporting_facts": [["Inn", 0], ["Rook", 0]],
}


def test_questions_to_search_for(tmp_path):
    file = write(tmp_path / "rows.jsonl", [HOTPOT, {"Question": "Q?", "Answer": "A"}])
    chosen = parse(f"hotpotqa={file}")
    assert chosen.search and chosen.max_completion_tokens == 0
    task = benchmarks.task(chosen, choices.Tags.SEARCH, RewardConfig())
    assert [each.title for each in task.documents] == ["Inn", "Rook", "C"]
    first, second = task.test
    ids = [each.id for each in task.documents]
    assert first.columns["evidence"] == ((ids[0],), (ids[1],))
    assert (first.columns["hops"], first.columns["level"]) == (2, "hard")
    assert second.columns["evidence"] == () and second.reference == "A"
    assert set(task.watched) <= set(task.rewards)
    said = "<think>x</think><answer>the Bo Lin</answer>"
    row = Completion("q", said, "Bo Lin", 9, True, 0, first.columns)
    assert list(task.rewards["accuracy"]([row])) == [1.0]
    assert list(task.rewards["answer_f1"]([row])) == [1.0]


def test_what_is_no_question_is_named(tmp_path):
    file = write(tmp_path / "rows.jsonl", [HOTPOT, {"text": "Q?"}])
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1 \(from 0\) cannot be"):
        benchmarks.task(parse(f"2wiki={file}"), choices.Tags.SEARCH, RewardConfig())


def test_problems_are_the_test_of_their_task(tmp_path):
    file = write(tmp_path / "rows.jsonl", [{"question": "1+1?", "answer": "2"}])
    task = benchmarks.task(parse(f"own={file}"), choices.Tags.SEARCH, RewardConfig())
    assert [each.question for each in task.test] == ["1+1?"] and not task.documents
    task.close()
