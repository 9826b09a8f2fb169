"""The pages that questions need, as documents, and which of them a corpus has."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from grpo_jax.data.examples import Example
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.titles import normalize_title
from grpo_jax.tasks.questions import Question


class MissingTitles(NamedTuple):
    """Gold pages that a corpus does not have.

    Attributes:
      titles: of those pages, each once, in order.
      share: of all gold pages of all examples; 0 where there are none.
    """

    titles: tuple[str, ...]
    share: float


def document_id(title: str, text: str) -> str:
    """Returns the id of a page, from what it says: the same in every file."""
    return hashlib.sha256(f"{title}\0{text}".encode()).hexdigest()[:16]


def documents_of(questions: Iterable[Question]) -> list[Document]:
    """Returns the pages that rows bring, each once, in order.

    Pages are the same where title and text are; two versions of one stay two.
    """
    found: dict[str, Document] = {}
    for question in questions:
        for title, text, _ in question.paragraphs:
            id = document_id(title, text)
            found.setdefault(id, Document(id, title, text))
    return list(found.values())


def with_evidence(
    examples: Iterable[Example], documents: Sequence[Document]
) -> list[Example]:
    """Returns the examples with the column "evidence": gold pages, by ids of a corpus.

    Of a gold page whose text an example knows, and the corpus has, that document;
    otherwise all whose titles are equal after `normalize_title`, which are none where
    the corpus lacks the page. See `rewards/evidence.py`.
    """
    known = {document.id for document in documents}
    by_title = _by_title(documents)
    return [
        dataclasses.replace(
            example,
            columns={
                **example.columns,
                "evidence": tuple(
                    (id,)
                    if (id := document_id(title, text)) in known
                    else by_title.get(normalize_title(title), ())
                    for title, text in zip(
                        example.columns["gold_titles"],
                        example.columns["gold_texts"],
                        strict=True,
                    )
                ),
            },
        )
        for example in examples
    ]


def missing_titles(
    examples: Iterable[Example], documents: Sequence[Document]
) -> MissingTitles:
    """Returns which gold pages of `examples` no document has by title."""
    by_title = _by_title(documents)
    golds = [title for each in examples for title in each.columns["gold_titles"]]
    missing = [title for title in golds if normalize_title(title) not in by_title]
    return MissingTitles(
        tuple(dict.fromkeys(missing)), len(missing) / max(1, len(golds))
    )


def _by_title(documents: Sequence[Document]) -> dict[str, tuple[str, ...]]:
    ids: dict[str, list[str]] = {}
    for document in documents:
        ids.setdefault(normalize_title(document.title), []).append(document.id)
    return {title: tuple(each) for title, each in ids.items()}
