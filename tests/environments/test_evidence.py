"""Gold pages are found in what a run searches, and what is not there is said."""

import pytest

from grpo_jax import choices
from grpo_jax.data.examples import Example
from grpo_jax.environments import evidence
from grpo_jax.environments.calculator import Calculator
from grpo_jax.environments.search import Search
from grpo_jax.retrieval.base import Document, Hit
from grpo_jax.retrieval.cache import QueryCache
from grpo_jax.retrieval.load import open_documents
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.rewards.tags import SEARCH
from grpo_jax.tasks.base import Task

CORPUS = [
    Document("inn.md#1", "The Inn", "It was built in 1763."),
    Document("inn.md#2", "The Inn", "By the sultan."),
    Document("rook.md#1", "Old Rook", "A town."),
]
ELSEWHERE = RetrievalConfig(corpus_path="notes")


class Server:
    """A retriever whose documents only it knows."""

    documents = None

    def search(self, queries, k):
        return [[Hit(Document("17", "The “Inn”", ""), 1.0)] for _ in queries]

    def describe(self):
        return {}

    def close(self):
        pass


def example(id, *titles, **columns):
    return Example(id, "?", "", columns={"gold_titles": titles, **columns})


def task_of(*train):
    test = [example(0, "old rook")]
    return Task("t", train, [], test, {"accuracy": lambda rows: rows})


def search_of(retriever):
    return Search(retriever, SEARCH, top_k=1)


@pytest.fixture(scope="module")
def search():
    environment = search_of(open_documents(CORPUS, RetrievalConfig()))
    yield environment
    environment.close()


def of(examples):
    return [each.columns.get("evidence") for each in examples]


def test_pages_are_found_by_title_in_all_their_parts(search):
    task = task_of(example(0, "the inn"), example(1), Example(2, "?", ""))
    task, warning = evidence.find(task, search, ELSEWHERE)
    assert of(task.train) == [(("inn.md#1", "inn.md#2"),), (), None]
    assert of(task.test) == [(("rook.md#1",),)] and warning == ""


def test_what_is_missing_is_said(search):
    task = task_of(example(0, "The Inn", "Gone"), example(1, "Lost", "Gone"))
    task, warning = evidence.find(task, search, ELSEWHERE)
    assert of(task.train)[1] == ((), ())
    assert warning == (
        "warning: 2 titles of pages that questions need, such as 'Gone', 'Lost', are "
        "no title in notes: 60.0% of the evidence cannot be found"
    )


def test_a_corpus_without_any_of_them_is_refused(search):
    task = Task("t", [example(0, "Gone")], [], [], {})
    with pytest.raises(
        ValueError, match=r"'Gone', are no title in notes: 100.0% .*its"
    ):
        evidence.find(task, search, ELSEWHERE)


def test_a_corpus_without_titles_is_refused():
    environment = search_of(
        open_documents([Document("1", "", "It was built.")], RetrievalConfig())
    )
    task = task_of(example(0, "The Inn"))
    with pytest.raises(ValueError, match="config.retrieval.title_column"):
        evidence.find(task, environment, ELSEWHERE)
    environment.close()


def test_of_a_server_titles_are_evidence_and_are_recorded():
    environment = search_of(QueryCache(Server(), 9))
    http = RetrievalConfig(kind=choices.Retriever.HTTP)
    task, warning = evidence.find(task_of(example(0, 'The "Inn"')), environment, http)
    assert of(task.train) == [(("the inn",),)] and warning == ""
    (reply,) = environment.step([0], ["x"])
    assert reply.document_ids == ("the inn",)


@pytest.mark.parametrize("environment", [None, Calculator()])
def test_nothing_else_is_touched(environment, search):
    task = task_of(example(0, "Gone"))
    assert evidence.find(task, environment, ELSEWHERE) == (task, "")
    assert evidence.find(task, search, RetrievalConfig()) == (task, "")
