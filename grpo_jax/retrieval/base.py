"""What every retriever takes and gives."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

# Scores whose maxima are looked at together; see `top`.
_BLOCK = 128


@dataclasses.dataclass(frozen=True)
class Document:
    """One text that can be found.

    Attributes:
      id: distinct within a corpus.
      title: "" where the corpus has none.
      text: without the title.
    """

    id: str
    title: str
    text: str


@dataclasses.dataclass(frozen=True)
class Hit:
    """A document that was found; of two hits, the one with the higher score is better.

    Scores of different retrievers cannot be compared.
    """

    document: Document
    score: float


@dataclasses.dataclass(frozen=True)
class Failure:
    """The retriever could not answer: nothing is known about what there is to find.

    Not the same as no hits, which is an answer. Whoever asked must leave the row out.
    """

    reason: str


Found = list[Hit] | Failure


@runtime_checkable
class Retriever(Protocol):
    """Finds documents, for many queries at a time."""

    @property
    def documents(self) -> Iterable[Document] | None:
        """What is searched; None where only a server knows."""
        ...

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """Returns for each query at most k hits, best first, or why there are none.

        The same query has the same hits, whatever else is in the batch; documents of
        equal score come in the order of the corpus.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Returns what the hits depend on, for the records of a run."""
        ...

    def close(self) -> None:
        """Ends what the retriever started."""
        ...


def top(scores: Float[np.ndarray, "N"], k: int) -> Int[np.ndarray, "found"]:
    """Returns the indices of the k highest scores above 0, the lower index first.

    Args:
      scores: of every document, 0 for one that has nothing to do with the query.
      k: how many, 1 or more; fewer come back where fewer are above 0.
    """
    # The k-th highest maximum of blocks is at most the k-th highest score, so that
    # only what reaches it must be sorted. It is found in a tenth of the time.
    maxima = scores[: len(scores) - len(scores) % _BLOCK].reshape(-1, _BLOCK).max(1)
    floor = np.partition(maxima, -k)[-k] if len(maxima) >= k else 0.0
    candidates = np.flatnonzero((scores >= floor) & (scores > 0))
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order[:k]]
