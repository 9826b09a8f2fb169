"""Queries that were asked before are not asked again."""

import collections
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from grpo_jax.retrieval.base import Document, Failure, Found, Hit, Retriever


class QueryCache:
    """A retriever that remembers its last answers.

    Queries that differ only in white space are one, in the form with single spaces;
    in a batch each is asked once. An empty query has no hits and asks nobody. Failures
    are forgotten, so that the query is asked again. The cache starts empty in each
    process: it saves time and changes no hit, so that a resumed run needs none.
    """

    def __init__(
        self,
        retriever: Retriever,
        entries: int,
        on_close: Callable[[], None] | None = None,
    ):
        """Remembers the answers to the last `entries` queries; 0: none."""
        self._retriever, self._entries, self._on_close = retriever, entries, on_close
        self._kept: collections.OrderedDict[tuple[str, int], list[Hit]] = (
            collections.OrderedDict()
        )
        self._counts: collections.Counter[str] = collections.Counter()
        self._seconds = 0.0

    @property
    def documents(self) -> Iterable[Document] | None:
        """What the retriever searches."""
        return self._retriever.documents

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """Returns for each query at most k hits, best first, or why there are none."""
        plain = [" ".join(query.split()) for query in queries]
        answers: dict[str, Found] = {"": []}
        for query in plain:
            if (query, k) in self._kept:
                self._kept.move_to_end((query, k))
                answers[query] = self._kept[query, k]
        new = list(dict.fromkeys(query for query in plain if query not in answers))
        answers |= zip(new, self._ask(new, k), strict=True)
        found = [answers[query] for query in plain]
        failures = sum(isinstance(each, Failure) for each in found)
        self._counts.update(queries=len(plain), asked=len(new), failures=failures)
        # Whoever changes a list must not change what others get.
        return [each if isinstance(each, Failure) else list(each) for each in found]

    def take_metrics(self) -> dict[str, float]:
        """Returns what happened since the last call.

        Returns:
          `retrieval/queries`: how many there were; `asked`: of these, by the retriever;
          `cache_hits`: the others; `failures`: queries without an answer; `seconds`:
          in the retriever.
        """
        counts = self._counts
        metrics = {
            "retrieval/queries": float(counts["queries"]),
            "retrieval/asked": float(counts["asked"]),
            "retrieval/cache_hits": float(counts["queries"] - counts["asked"]),
            "retrieval/failures": float(counts["failures"]),
            "retrieval/seconds": self._seconds,
        }
        self._counts, self._seconds = collections.Counter(), 0.0
        return metrics

    def describe(self) -> dict[str, Any]:
        """Returns what the retriever says of itself: a cache changes no hit."""
        return self._retriever.describe()

    def close(self) -> None:
        """Closes the retriever."""
        self._retriever.close()
        if self._on_close:
            self._on_close()

    def _ask(self, queries: Sequence[str], k: int) -> list[Found]:
        if not queries:
            return []
        start = time.perf_counter()
        found = self._retriever.search(queries, k)
        self._seconds += time.perf_counter() - start
        for query, each in zip(queries, found, strict=True):
            if not isinstance(each, Failure):
                self._kept[query, k] = each
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)
        return found
