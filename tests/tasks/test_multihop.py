"""Files become a task: documents once, evidence by ids, experts by question."""

import json

import pytest

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.retrieval.base import Document
from grpo_jax.tasks.corpus import (
    document_id,
    documents_of,
    missing_titles,
    with_evidence,
    with_titles_as_evidence,
)
from grpo_jax.tasks.load import load_task
from grpo_jax.tasks.multihop import examples_of, read_questions
from tests.tasks.test_questions import BASE, DAVID, HOTPOT, HUB, MUSIQUE, PAGES

OTHER = {**BASE, "question": "Where is Mara?", "answer": "Dale"}


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(tmp_path, *rows, **changes):
    path = write(tmp_path / "rows.jsonl", *rows)
    config = TaskConfig(**{"name": "multihop", "train_path": path, **changes}).seal()
    return load_task(config, RewardConfig())


def test_a_task_of_several_forms(tmp_path):
    test = write(tmp_path / "test.jsonl", OTHER)
    task = load(tmp_path, HOTPOT, MUSIQUE, DAVID, test_path=test)
    assert [(x.title, x.text) for x in task.documents] == PAGES
    rook, _, bo = ((each.id,) for each in task.documents)
    evidence = [list(x.columns["evidence"]) for x in task.train]
    assert evidence == [[rook, bo], [bo, rook], [rook, bo]]
    first = task.train[1]
    assert (first.id, first.tier, first.reference) == (1, 2, "Dale")
    assert first.columns["row_id"] == "2hop__1_2"
    assert first.columns["golds"] == ("Dale", "Dale Town")
    assert first.columns["gold_texts"] == (PAGES[2][1], PAGES[0][1])
    assert task.test[0].columns["evidence"] == () and task.test[0].tier == 0
    assert set(task.rewards) >= {"accuracy", "format", "david", "evidence_recall"}
    assert task.experts == {}


def test_held_out_questions_are_not_trained_on(tmp_path):
    rows = [{**BASE, "question": f"q{at % 6}"} for at in range(12)]
    task = load(tmp_path, *rows, validation_rows=3)
    held_out = {x.question for x in task.validation}
    assert not held_out & {x.question for x in task.train}


def test_an_unreadable_row_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1 \(from 0\) cannot be"):
        load(tmp_path, HOTPOT, {"text": "x"})


def test_evidence_in_another_corpus(tmp_path):
    path = write(tmp_path / "rows.jsonl", HUB, OTHER)
    examples = examples_of(read_questions(path))
    corpus = [
        Document("a", "ROOK", "part 1"),
        Document("b", "Rook", "part 2"),
        Document("c", "Mara", ""),
    ]
    found = with_evidence(examples, corpus)
    assert [each.columns["evidence"] for each in found] == [(("a", "b"), ()), ()]
    missing = missing_titles(found)
    assert (missing.titles, missing.share) == (("Bo Lin",), 0.5)
    assert missing_titles(found[1:]).share == 0.0
    # The page itself goes before others of its title.
    own = Document(document_id(*PAGES[0]), *PAGES[0])
    found = with_evidence(examples, [*corpus, own])
    assert found[0].columns["evidence"] == ((own.id,), ())


def test_titles_are_compared_without_case_entities_and_marks(tmp_path):
    row = {**BASE, "supporting_facts": [["Simon &amp; Co.: The  Inn", 0], ["?", 0]]}
    examples = examples_of(read_questions(write(tmp_path / "rows.jsonl", row)))
    corpus = [Document("1", "simon & co the inn", ""), Document("2", "?", "")]
    assert with_evidence(examples, corpus)[0].columns["evidence"] == (("1",), ("2",))
    found = with_evidence(examples, [Document("3", "!", "")])
    assert missing_titles(found).share == 1.0
    by_title = with_titles_as_evidence(examples)[0].columns["evidence"]
    assert by_title == (("simon co the inn",), ("?",))


def test_documents_are_distinct(tmp_path):
    longer = {**HOTPOT, "context": [["Rook", ["Another version."]]]}
    questions = read_questions(write(tmp_path / "rows.jsonl", HOTPOT, HUB, longer))
    documents = documents_of(questions)
    assert [each.title for each in documents] == ["Rook", "Mara", "Bo Lin", "Rook"]
    assert len({each.id for each in documents}) == 4


def test_experts_belong_to_the_question_they_answer(tmp_path):
    trace = (
        "so <begin_search>mayor Rook</end_search>\n\n<search_result> result 1: "
        '"Rook"\nIts mayor is Bo Lin. </search_result>\n\n</think>\n\n\\boxed{Dale}'
    )
    experts = write(tmp_path / "experts.jsonl", {**DAVID, "gold_response": trace})
    task = load(tmp_path, OTHER, HOTPOT, experts_path=experts)
    assert list(task.experts) == [1]
    assert [turn.query for turn in task.experts[1]] == ["mayor Rook", ""]
    with pytest.raises(ValueError, match="of its 1 usable trajectories none answers"):
        load(tmp_path, OTHER, experts_path=experts)
    bad = write(tmp_path / "bad.jsonl", {**BASE, "gold_response": "</think>\\boxed{}"})
    with pytest.raises(ValueError, match="row 0 .*no answer.*drop_bad_experts"):
        load(tmp_path, HOTPOT, experts_path=bad, drop_bad_experts=False)
