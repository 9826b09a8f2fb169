"""The world: short texts, one answer, disjoint splits, queries that find."""

import collections
import dataclasses
import json
import math
import re

import numpy as np
import pytest

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.data.world_words import NAMES
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.tags import COMPACT, DAVID, SEARCH
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks import world
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.expert_files import row_of
from grpo_jax.tasks.experts import record, segments
from grpo_jax.tasks.load import load_task

SMALL = dict(
    entities=96,
    distractors=24,
    train_questions=60,
    validation_questions=12,
    test_questions=20,
)
EVERY_HOP = dict(one_hop=0.25, two_hops=0.25, three_hops=0.25, four_hops=0.25)


def made(tags=COMPACT, **changes):
    config = WorldConfig(**{**SMALL, **changes}).seal("config.task.world")
    return world.world(config, tags, RewardConfig())


@pytest.fixture(scope="module")
def task():
    return made(**EVERY_HOP)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def best(documents, query: str) -> tuple[str, float]:
    """Id of the document with the highest BM25, and its lead over the next one."""
    texts = [words(f"{each.title} {each.text}") for each in documents]
    mean = sum(map(len, texts)) / len(texts)
    found = collections.Counter(word for text in texts for word in set(text))
    scores = []
    for text in texts:
        norm = 1.5 * (0.25 + 0.75 * len(text) / mean)
        counts = [(text.count(word), found[word]) for word in words(query)]
        scores.append(
            sum(
                math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
                * count
                / (count + norm)
                for count, n in counts
            )
        )
    order = sorted(range(len(texts)), key=lambda at: -scores[at])
    return documents[order[0]].id, scores[order[0]] - scores[order[1]]


def follow(task, question: str) -> tuple[str, list[str]]:
    """Answers a question from the documents alone; also the documents it needed."""
    documents = {each.title: each for each in task.documents}
    *facts, name = question.removesuffix("?").split(" of ")
    needed = []
    for fact in reversed(facts):
        needed.append(documents[name].id)
        stated = dict(each.split(" ", 1) for each in documents[name].text.split("; "))
        name = stated[fact]
    return name, needed


def test_documents_answer_every_question_in_one_way(task):
    for example in (*task.train, *task.validation, *task.test):
        answer, needed = follow(task, example.question)
        assert answer == example.reference
        assert [[id] for id in needed] == list(map(list, example.columns["evidence"]))
        assert len(set(needed)) == example.tier == example.columns["hops"]
        assert answer not in example.question
        assert list(example.columns["golds"]) == [answer]


def test_texts_are_short_and_names_are_unique(task):
    assert max(len(f"{x.title}: {x.text}") for x in task.documents) <= 60
    assert max(len(example.question) for example in task.train) <= 60
    assert len({each.title for each in task.documents}) == len(task.documents) == 120
    assert len({each.id for each in task.documents}) == 120


def test_one_token_a_tag(task):
    tokenizer = load_tokenizer("search-characters")
    text = "".join(piece.text for piece in segments(COMPACT, task.experts[0]))
    tags = sum(text.count(tag) for tag in COMPACT.names)
    letters = len(text) - sum(len(tag) * text.count(tag) for tag in COMPACT.names)
    assert len(tokenizer.encode(text)) == letters + tags
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == load_tokenizer("characters").vocab_size + 4


def test_one_token_a_word(task):
    tokenizer = load_tokenizer("search-words")
    documents = [f"{each.title}: {each.text}" for each in task.documents]
    assert {len(tokenizer.encode(text)) for text in documents} == {10}
    for example in (*task.train, *task.test):
        assert len(tokenizer.encode(example.question)) == 2 * example.tier + 3
    for turns in task.experts.values():
        text = "".join(piece.text for piece in segments(COMPACT, turns))
        assert tokenizer.decode(tokenizer.encode(text)) == text
        queries = [tokenizer.encode(turn.query) for turn in turns if turn.query]
        assert {len(query) for query in queries} == {3}


def test_splits_share_no_entity(task):
    known = {name: set() for name in world.SPLITS}
    for name, ids in known.items():
        for example in getattr(task, name):
            ids.update(example.columns["gold_titles"], [example.reference])
    assert (
        not known["train"] & known["test"] and not known["train"] & known["validation"]
    )
    assert not known["validation"] & known["test"]
    asked = [x.question for name in known for x in getattr(task, name)]
    assert len(set(asked)) == len(asked)
    # Distractors are never needed, and each has a word of somebody's name.
    distractors = task.documents[96:]
    assert not {each.title for each in distractors} & set.union(*known.values())
    names = {word for each in task.documents[:96] for word in each.title.split()}
    assert all(names & set(each.title.split()) for each in distractors)


def test_vocabularies_are_apart():
    groups = [words for pair in NAMES.values() for words in pair]
    groups += [list(facts) for facts in world.FACTS.values()]
    every = [word.lower() for group in groups for word in group]
    assert len(set(every)) == len(every)
    assert {len(group) for group in groups} == {2, 8, 32}


@pytest.mark.parametrize("thoughts", [True, False])
@pytest.mark.parametrize("tags", [COMPACT, SEARCH, DAVID])
def test_experts_are_worth_the_most(tags, thoughts):
    task = made(tags, **EVERY_HOP, thoughts=thoughts)
    rows = [
        Completion(
            prompt=x.question,
            text="".join(piece.text for piece in segments(tags, task.experts[x.id])),
            reference=x.reference,
            num_tokens=9,
            finished=True,
            group=x.id,
            columns=x.columns,
            turns=record(tags, task.experts[x.id]),
        )
        for x in task.train
    ]
    for name in ("accuracy", "answer_f1", "evidence_recall", "search_format", "david"):
        assert task.rewards[name](rows) == [1.0] * len(rows), name
    seen = segments(tags, task.experts[0])
    assert [x.observed for x in seen] == [False, True] * task.train[0].tier + [False]


def test_queries_find_their_documents(task):
    for example in task.train[::3]:
        for turn in task.experts[example.id][:-1]:
            id, lead = best(task.documents, turn.query)
            assert (id,) == tuple(each.id for each in turn.documents)
            assert lead > 0.1


def test_hops_come_in_the_shares_asked_for(task):
    assert collections.Counter(x.tier for x in task.train) == dict.fromkeys(
        (1, 2, 3, 4), 15
    )
    config = dict(one_hop=0.0, two_hops=2 / 3, three_hops=1 / 3)
    tiers = collections.Counter(x.tier for x in made(**config).test)
    assert tiers == {2: 13, 3: 7}


def test_the_same_config_gives_the_same_world(task):
    again = made(**EVERY_HOP)
    assert again.train == task.train and again.documents == task.documents
    assert again.experts == task.experts
    other = made(**EVERY_HOP, world_seed=1)
    assert other.train != task.train and other.documents != task.documents
    # The world does not depend on how much of it is asked.
    fewer = made(**EVERY_HOP, train_questions=8)
    assert fewer.test == task.test and fewer.documents == task.documents


def demonstrations(**changes) -> tuple[Task, list[str]]:
    """Returns a task and a demonstration of each of its training questions."""
    task = made(**EVERY_HOP, **changes)
    shown = task.demonstrate(task.train, np.random.default_rng(0))
    return task, ["".join(piece.text for piece in pieces) for pieces in shown]


def calls(text: str) -> int:
    return text.count("<search>")


def test_demonstrations_follow_documents_that_say_something_else(task):
    _, texts = demonstrations()
    real = [
        "".join(piece.text for piece in segments(COMPACT, task.experts[x.id]))
        for x in task.train
    ]
    for example, text, other in zip(task.train, texts, real, strict=True):
        read = re.findall("<information>(.*?): (.*?)</information>", text)
        shown = [Document(str(at), *each) for at, each in enumerate(read)]
        answer, needed = follow(
            dataclasses.replace(task, documents=shown), example.question
        )
        assert f"<answer>{answer}</answer>" in text
        assert len(needed) == calls(text) == example.tier
        # What is thought and asked first is the question's own.
        assert text.partition("</search>")[0] == other.partition("</search>")[0]
    assert sum(map(str.__eq__, texts, real)) < 5


def test_names_of_other_splits_are_in_no_demonstration(task):
    _, texts = demonstrations()
    shown = set(re.findall("<answer>(.*?)</answer>", "".join(texts)))
    tested = {x.reference for x in (*task.validation, *task.test)}
    assert not shown & tested


def test_demonstrations_may_stop_early():
    task, texts = demonstrations(early_stop_fraction=1.0, needless_call_fraction=1.0)
    for example, text in zip(task.train, texts, strict=True):
        fact, answer = example.question.split(" of ")[-2], found(text, -1)
        assert f"{fact} {answer}" in text.partition("</information>")[0]
        assert calls(text) == 1 + (example.tier == 1)


def test_demonstrations_may_look_up_the_answer():
    task, texts = demonstrations(needless_call_fraction=1.0)
    for example, text in zip(task.train, texts, strict=True):
        assert calls(text) == example.tier + 1
        *_, last, answer = re.findall("<think>(.*?)</think>", text)
        assert last == answer == found(text, -1)
        assert re.findall("<search>(.*?)</search>", text)[-1].startswith(f"{answer} ")


def found(text: str, at: int) -> str:
    return re.findall("<answer>(.*?)</answer>", text)[at]


def test_the_same_generator_gives_the_same_demonstrations():
    defects = dict(early_stop_fraction=0.5, needless_call_fraction=0.5)
    assert demonstrations(**defects)[1] == demonstrations(**defects)[1]


def test_too_many_questions_or_entities():
    with pytest.raises(
        ValueError, match=r"test_questions is 999, of which .* there are"
    ):
        made(test_questions=999)
    with pytest.raises(ValueError, match=r"there are 256 names; use at most 1024"):
        made(entities=1020)
    with pytest.raises(ValueError, match="are all 0"):
        made(one_hop=0.0, two_hops=0.0, three_hops=0.0)


def test_it_is_loaded_by_name():
    config = TaskConfig(name="world", world=WorldConfig(**SMALL))
    task = load_task(config, RewardConfig())
    assert (task.name, len(task.train), len(task.documents)) == ("world", 60, 120)
    assert set(task.experts) == {example.id for example in task.train}


def test_experts_of_a_file_take_the_place_of_its_own(task, tmp_path):
    path = tmp_path / "experts.jsonl"
    example = task.train[7]
    row = row_of(example.question, example.columns["golds"], task.experts[example.id])
    path.write_text(json.dumps(row) + "\n")
    world = WorldConfig(**SMALL, **EVERY_HOP)
    config = TaskConfig(name="world", world=world, experts_path=str(path))
    found = load_task(config, RewardConfig())
    assert found.experts == {example.id: task.experts[example.id]}
