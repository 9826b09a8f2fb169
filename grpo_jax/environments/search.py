"""Searching: queries between tags, documents in return."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Notice, Reply
from grpo_jax.retrieval.base import Document, Failure, Found
from grpo_jax.retrieval.cache import QueryCache
from grpo_jax.rewards import reading, tags
from grpo_jax.rewards.reading import Query
from grpo_jax.rewards.tags import TagSet
from grpo_jax.rewards.titles import normalize_title


class Search:
    """Answers queries with the best documents of a retriever."""

    def __init__(self, retriever: QueryCache, tag_set: TagSet, top_k: int):
        """Shows `top_k` documents a query, marked by `tag_set`.

        What was shown is recorded by ids; where only a server knows its documents, by
        titles, since nobody can say which ids a title has.
        """
        self.stops: tuple[str, ...] = (tag_set.query.close,)
        self._retriever, self._tags, self._top_k = retriever, tag_set, top_k
        self._closing = f"{tag_set.observation.close}{tag_set.margin}"

    @property
    def documents(self) -> Iterable[Document] | None:
        """What is searched; None where only a server knows."""
        return self._retriever.documents

    def reset(
        self, examples: Sequence[Example], histories: Sequence[Sequence[str]]
    ) -> None:
        """Nothing is kept between queries."""

    def read(self, turn: str) -> Query:
        """Returns the query of a turn by the rules of `rewards/reading.py`."""
        return reading.read_query(self._tags, turn)

    def step(self, rows: Sequence[int], queries: Sequence[str]) -> list[Reply]:
        """Returns the documents of each query, or that the retriever failed."""
        return list(map(self._reply, self._retriever.search(queries, self._top_k)))

    def notice(self, notice: Notice) -> Reply:
        """Returns an observation that holds no document."""
        return Reply(tags.write_notice(self._tags, notice.value), self._closing)

    def describe(self) -> Mapping[str, Any]:
        """Returns what the retriever says of itself, and how much is shown."""
        return {**self._retriever.describe(), "top_k": self._top_k}

    def take_metrics(self) -> Mapping[str, float]:
        """Returns what the retriever did."""
        return self._retriever.take_metrics()

    def close(self) -> None:
        """Closes the retriever."""
        self._retriever.close()

    def _reply(self, found: Found) -> Reply:
        if isinstance(found, Failure):
            return Reply(found.reason, failed=True)
        documents = [hit.document for hit in found]
        shown = [(document.title, document.text) for document in documents]
        return Reply(
            tags.write_observation(self._tags, shown),
            self._closing,
            tuple(map(self._recorded, documents)),
        )

    def _recorded(self, document: Document) -> str:
        if self.documents is None:
            return normalize_title(document.title or document.id)
        return document.id
