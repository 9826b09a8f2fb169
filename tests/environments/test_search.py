"""A search shows what a retriever finds, and says what it could not."""

import pytest

from grpo_jax import config as c
from grpo_jax.environments.base import Environment, Notice
from grpo_jax.environments.load import open_environment
from grpo_jax.environments.search import Search
from grpo_jax.retrieval.base import Document, Failure, Hit
from grpo_jax.retrieval.cache import QueryCache
from grpo_jax.retrieval.load import open_documents
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.rewards.tags import DAVID, SEARCH
from grpo_jax.tasks.base import Task

DOCUMENTS = [
    Document("7", "Ada Fox", "home Old Rook; job Zed Inn"),
    Document("8", "Old Rook", "mayor Bo Lin; guild Amp Co"),
]


class Fails:
    documents = ()

    def search(self, queries, k):
        return [
            Failure("it is down") if "down" in query else [Hit(DOCUMENTS[0], 1.0)]
            for query in queries
        ]

    def describe(self):
        return {}

    def close(self):
        pass


def task_of(documents=()):
    return Task("t", [], [], [], {"accuracy": lambda rows: rows}, documents=documents)


def config_of(environment="search", **retrieval):
    return c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="characters"),
        episode=c.EpisodeConfig(environment=environment),
        retrieval=RetrievalConfig(**retrieval),
    ).seal()


def test_documents_of_a_task_are_found_and_shown():
    search = open_environment(config_of(top_k=1), task_of(DOCUMENTS))
    assert isinstance(search, Search) and isinstance(search, Environment)
    query = search.read("<think>hm</think>\n<search>guild of Old Rook</search>")
    assert query == ("guild of Old Rook", False)
    (reply,) = search.step([0], [query.text])
    assert reply.document_ids == ("8",) and not reply.failed
    assert reply.text.strip().startswith("<information>")
    assert "Amp Co" in reply.text and reply.text.endswith(reply.closing)
    assert search.take_metrics()["retrieval/queries"] == 1
    assert search.describe()["top_k"] == 1 and "corpus" in str(search.describe())
    search.close()


def test_a_failure_is_no_empty_answer():
    search = Search(QueryCache(Fails(), 9), SEARCH, top_k=3)
    replies = search.step([0, 1], ["who", "down"])
    assert [reply.failed for reply in replies] == [False, True]
    assert replies[0].document_ids == ("7",) and replies[1].document_ids == ()


def test_nothing_found_is_said():
    retriever = open_documents(DOCUMENTS, RetrievalConfig())
    search = Search(retriever, SEARCH, top_k=3)
    (reply,) = search.step([0], ["zebra"])
    assert reply.document_ids == () and "No document was found" in reply.text


@pytest.mark.parametrize("tags", [SEARCH, DAVID])
def test_notices_stand_where_documents_do(tags):
    search = Search(QueryCache(Fails(), 9), tags, top_k=3)
    assert search.stops == (tags.query.close,)
    for notice in Notice:
        reply = search.notice(notice)
        assert notice.value in reply.text and reply.text.endswith(reply.closing)
        assert tags.observation.open in reply.text


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("serach", "environment is 'serach': did you mean 'search'"),
        ("no_such:thing", "no module 'no_such'"),
        ("search", "nothing to search: task 't' brings no documents"),
    ],
)
def test_what_cannot_be_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        open_environment(config_of(environment), task_of())


def test_without_an_environment_there_is_none():
    assert open_environment(config_of(""), task_of(DOCUMENTS)) is None
