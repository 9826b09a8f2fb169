"""Published trajectories become turns, and those of no use are left out or refused."""

import json

import pytest

from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.tags import COMPACT, DAVID, SEARCH
from grpo_jax.tasks.expert_files import R1_SEARCHER, parse, read_experts, row_of
from grpo_jax.tasks.experts import ExpertTurn, segments

DOCUMENTS = """\
(1)Title: Ada Fox Text:  Ada Fox lives in Rook. (2) is no document.
(2)Title: The "Inn" Text:  It is in Mara."""
R1 = f"""\
I must find Ada.

<|begin_of_query|> Ada Fox<|end_of_query|>

<|begin_of_documents|>
{DOCUMENTS}
<|end_of_documents|>

She lives in Rook. </think>

 <answer> Rook </answer>"""
DAVID_TEXT = """\
I must find Ada.
<begin_search> Ada Fox </end_search>

<search_result> result 1: "Ada Fox"
Ada Fox lives in Rook. (2) is no document.
result 2: "The "Inn""
It is in Mara. </search_result>

She lives in Rook.
</think>

So it is Rook.

\\boxed{Rook}"""
REACT = """\
Thought: I must find Ada.
Action: search[Ada Fox]
Observation: Ada Fox lives in Rook.
Thought: She lives in Rook.
Action: finish[Rook]
Observation: Episode finished, reward = True
"""


def pages(turn: ExpertTurn) -> list[tuple[str, str]]:
    return [(each.title, each.text) for each in turn.documents]


@pytest.mark.parametrize("text", [R1, DAVID_TEXT])
def test_tags(text):
    asks, answers = parse(text)
    assert (asks.thought, asks.query, asks.answer) == (
        "I must find Ada.",
        "Ada Fox",
        "",
    )
    assert pages(asks) == [
        ("Ada Fox", "Ada Fox lives in Rook. (2) is no document."),
        ('The "Inn"', "It is in Mara."),
    ]
    assert answers == ExpertTurn("She lives in Rook.", answer="Rook")


def test_lines():
    asks, answers = parse(REACT)
    assert (asks.thought, asks.query) == ("I must find Ada.", "Ada Fox")
    assert pages(asks) == [("", "Ada Fox lives in Rook.")]
    assert answers == ExpertTurn("She lives in Rook.", answer="Rook")


@pytest.mark.parametrize("tags", [SEARCH, DAVID, R1_SEARCHER])
def test_what_is_written_is_read_back(tags):
    turns = parse(DAVID_TEXT)
    assert parse("".join(piece.text for piece in segments(tags, turns))) == turns


def test_other_ways_of_writing_documents():
    observation = '(1).mil   The domain of\n(2)"Title: A ""b"" Text:  c ""d"" e"'
    asks, _ = parse(R1.replace(DOCUMENTS, observation))
    assert pages(asks) == [(".mil", "The domain of"), ('A "b"', 'c "d" e')]
    asks, _ = parse(R1.replace(DOCUMENTS, "  "))
    assert asks.documents == ()


def test_no_search_is_a_trajectory_too():
    assert parse("so</think> <answer>x</answer>") == (ExpertTurn("so", answer="x"),)
    assert parse("so</think> \\boxed{x}") == (ExpertTurn("so", answer="x"),)
    compact = "<think>so</think><answer>x</answer>"
    assert parse(compact) == (ExpertTurn("so", answer="x"),)


BAD = [
    (R1.replace("Rook </answer>", "Mara </answer>"), "wrong answer"),
    (R1.replace("I must", "<plan>I must"), "unknown tag"),
    (R1.replace("She lives", "<|end_of_text|>She lives"), "unknown tag"),
    (R1.replace(" Rook </answer>", "</answer>"), "no answer"),
    (R1.replace("</answer>", ""), "malformed"),
    (R1.replace("<|end_of_query|>", ""), "malformed"),
    (R1.replace("<|end_of_documents|>", "<|end_of_documents|><answer>"), "malformed"),
    (f"{R1} and so on", "malformed"),
    (R1.replace("<|begin_of_doc", "well <|begin_of_doc"), "malformed"),
    (DAVID_TEXT.replace("She lives", "She <think>lives"), "malformed"),
    (DAVID_TEXT.replace("So it", "<plan>So it"), "unknown tag"),
    (R1[: R1.index("She")], "no answer"),
    (DAVID_TEXT.replace("{Rook}", "{}"), "no answer"),
    (DAVID_TEXT.replace("</think>", ""), "no answer"),
    (REACT.replace("search[", "look up["), "malformed"),
    (REACT.replace("finish[Rook]", "finish[]"), "malformed"),
    (REACT[: REACT.index("Action: finish")], "no answer"),
]


def write(path, *texts) -> str:
    rows = [{"question": "q", "answer": "rook.", "trajectory": text} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_those_of_no_use_are_left_out_with_their_reasons(tmp_path):
    path = write(tmp_path / "f.jsonl", R1, *(text for text, _ in BAD), REACT)
    experts = read_experts(path, drop=True)
    assert [each.turns for each in experts.kept] == [parse(R1), parse(REACT)]
    assert experts.kept[0].golds == ("rook.",)
    assert [each.reason for each in experts.dropped] == [reason for _, reason in BAD]
    assert experts.dropped[0].where.endswith("row 1 (from 0)")
    assert experts.reasons()["unknown tag"] == 3


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_or_refused(tmp_path, text, reason):
    path = write(tmp_path / "f.jsonl", R1, text)
    with pytest.raises(ValueError, match=rf"row 1 \(from 0\): {reason}"):
        read_experts(path, drop=False)


def test_a_row_without_a_trajectory_is_refused(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    with pytest.raises(ValueError, match="row 0 .* has no trajectory"):
        read_experts(str(path), drop=True)


def test_written_compactly():
    pieces = segments(COMPACT, parse(REACT))
    assert [piece.observed for piece in pieces] == [False, True, False]
    assert pieces[1].text == "<information>Ada Fox lives in Rook.</information>"


TURNS = (
    ExpertTurn("", "q", (Document("7", "", "t"), Document("8", "T", "u")), "", (-0.5,)),
    ExpertTurn("so", "r", (), "", (-1.0, 0.0)),
    ExpertTurn("thus", answer="Rook", log_probs=(-2.25,)),
)


def write_rows(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_turns_are_taken_as_they_are(tmp_path):
    row = row_of("Where?", ("Rook", "Old Rook"), TURNS)
    short = {
        "question": "Who?",
        "answer": "Bo",
        "turns": [
            {"query": "q", "documents": [{"id": 9, "text": "t"}]},
            {"answer": "Bo"},
        ],
    }
    path = write_rows(tmp_path / "f.jsonl", row, short)
    first, second = read_experts(path, drop=False).kept
    assert (first.question, first.golds) == ("Where?", ("Rook", "Old Rook"))
    assert first.turns == TURNS
    asked = ExpertTurn("", "q", (Document("9", "", "t"),))
    assert second.turns == (asked, ExpertTurn("", answer="Bo"))


def native(**changes):
    """A row whose last turn but one is changed."""
    row = row_of("Where?", ("Rook",), TURNS)
    row["turns"][1] |= changes
    return row


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": ""}, "row 0 .from 0.: malformed, all turns but the last ask"),
        ({"answer": "x"}, "malformed"),
        ({"log_probs": [-1, 0.1]}, r"turn 1, has the log_prob 0\.1"),
        ({"log_probs": [float("-inf")]}, "turn 1, has the log_prob -inf"),
        ({"log_probs": ["much"]}, "turn 1, cannot be read"),
        ({"documents": [{"title": "x"}]}, "turn 1, cannot be read .*'id'"),
        ({"thought": 3}, "turn 1, cannot be read"),
    ],
)
def test_turns_that_cannot_be_are_refused(tmp_path, changes, message):
    path = write_rows(tmp_path / "f.jsonl", native(**changes))
    with pytest.raises(ValueError, match=message):
        read_experts(path, drop=False)


def test_the_last_turn_must_answer(tmp_path):
    row = row_of("Where?", ("Rook",), TURNS[:2])
    path = write_rows(tmp_path / "f.jsonl", row, native(), {**native(), "turns": []})
    with pytest.raises(ValueError, match=r"row 2 .* has no trajectory.*'turns'"):
        read_experts(path, drop=True)
    path = write_rows(tmp_path / "f.jsonl", row, row_of("Where?", ("Inn",), TURNS))
    reasons = [each.reason for each in read_experts(path, drop=True).dropped]
    assert reasons == ["malformed", "wrong answer"]
