"""Nothing is asked twice but what failed, and it is counted."""

from grpo_jax.retrieval.base import Failure, Hit
from grpo_jax.retrieval.cache import QueryCache
from tests.retrieval.helpers import Scripted


def counted(cache):
    metrics = cache.take_metrics()
    assert metrics.pop("retrieval/seconds") >= 0
    return {name.removeprefix("retrieval/"): value for name, value in metrics.items()}


def test_a_query_is_asked_once_in_a_batch_and_once_at_all():
    retriever = Scripted()
    cache = QueryCache(retriever, 10)
    first = cache.search(["a", "b", "a", " a ", "a  b"], 2)
    assert retriever.asked == [(["a", "b", "a b"], 2)]
    assert first[0] == first[2] == first[3] == Scripted().search(["a"], 2)[0]
    assert cache.search(["b", "c", "a\nb"], 2)[:1] == first[1:2]
    assert retriever.asked[1:] == [(["c"], 2)]
    assert counted(cache) == {
        "queries": 8,
        "asked": 4,
        "cache_hits": 4,
        "failures": 0,
    }
    assert counted(cache)["queries"] == 0


def test_case_and_the_number_of_hits_make_another_query():
    retriever = Scripted()
    cache = QueryCache(retriever, 10)
    for query, k in (("a", 1), ("A", 1), ("a", 2), ("a", 1)):
        assert len(cache.search([query], k)[0]) == k
    assert retriever.asked == [(["a"], 1), (["A"], 1), (["a"], 2)]


def test_the_oldest_query_is_forgotten_first():
    retriever = Scripted()
    cache = QueryCache(retriever, 2)
    for query in ("a", "b", "a", "c", "a", "b"):
        cache.search([query], 1)
    # "a" was used after "b" when "c" came.
    assert [queries for queries, _ in retriever.asked] == [["a"], ["b"], ["c"], ["b"]]
    assert len(cache.search(list("defgh"), 1)) == 5


def test_without_entries_only_a_batch_is_deduplicated():
    retriever = Scripted()
    cache = QueryCache(retriever, 0)
    cache.search(["a", "a"], 1)
    cache.search(["a"], 1)
    assert retriever.asked == [(["a"], 1)] * 2


def test_failures_are_handed_on_and_forgotten():
    retriever = Scripted(failing=["a"])
    cache = QueryCache(retriever, 10)
    found = cache.search(["a", "b", "a"], 1)
    assert found[0] == found[2] == Failure("no a")
    assert isinstance(found[1], list)
    assert counted(cache)["failures"] == 2
    retriever.failing.clear()
    assert isinstance(cache.search(["a"], 1)[0], list)
    assert counted(cache)["failures"] == 0


def test_an_empty_query_asks_nobody_and_finds_nothing():
    retriever = Scripted()
    assert QueryCache(retriever, 10).search(["", " \n"], 3) == [[], []]
    assert QueryCache(retriever, 10).search([], 3) == []
    assert retriever.asked == []


def test_nobody_changes_what_others_get():
    cache = QueryCache(Scripted(), 10)
    mine = cache.search(["a"], 2)[0]
    assert isinstance(mine, list)
    assert isinstance(mine.pop(), Hit)
    again = cache.search(["a"], 2)[0]
    assert isinstance(again, list)
    assert len(again) == 2


def test_the_rest_is_the_retrievers():
    retriever = Scripted()
    cache = QueryCache(retriever, 1)
    assert cache.describe() == {"kind": "scripted"}
    cache.close()
    assert retriever.closed
