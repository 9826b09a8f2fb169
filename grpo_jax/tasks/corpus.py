"""The pages that questions need, as documents, and which of them a corpus has."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
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
    examples: Sequence[Example], documents: Iterable[Document]
) -> list[Example]:
    """Returns the examples with the column "evidence": gold pages, by ids of a corpus.

    Of a gold page whose text an example knows, and the corpus has, that document;
    otherwise all whose titles are equal after `normalize_title`, which are none where
    the corpus lacks the page. See `rewards/evidence.py`.

    Args:
      examples: with the columns "gold_titles" and, if texts are known, "gold_texts";
        those without are left as they are.
      documents: of the corpus; they are gone through once.
    """
    pages = {page for example in examples for page in _gold(example)}
    wanted_ids = {document_id(*page) for page in pages}
    by_title: dict[str, list[str]] = {normalize_title(title): [] for title, _ in pages}
    known = set()
    for document in documents:
        if document.id in wanted_ids:
            known.add(document.id)
        if (title := normalize_title(document.title)) in by_title:
            by_title[title].append(document.id)

    def ids(title: str, text: str) -> tuple[str, ...]:
        if (own := document_id(title, text)) in known:
            return (own,)
        return tuple(by_title[normalize_title(title)])

    return [_with(example, ids) for example in examples]


def with_titles_as_evidence(examples: Sequence[Example]) -> list[Example]:
    """Returns the examples with the column "evidence": gold pages, by their titles.

    For documents that nobody can go through: those of a server. What is shown must be
    recorded by `normalize_title` of its titles.
    """
    return [
        _with(each, lambda title, _: (normalize_title(title),)) for each in examples
    ]


def missing_titles(examples: Iterable[Example]) -> MissingTitles:
    """Returns which gold pages of `examples` were found in no document.

    Args:
      examples: as `with_evidence` returns them.
    """
    pairs = [
        (title, ids)
        for each in examples
        for (title, _), ids in zip(
            _gold(each), each.columns.get("evidence", ()), strict=False
        )
    ]
    missing = [title for title, ids in pairs if not ids]
    return MissingTitles(
        tuple(dict.fromkeys(missing)), len(missing) / max(1, len(pairs))
    )


def _gold(example: Example) -> list[tuple[str, str]]:
    """Returns title and text of the gold pages; "" for a text that is not known."""
    titles = example.columns.get("gold_titles", ())
    texts = example.columns.get("gold_texts") or ("",) * len(titles)
    return list(zip(titles, texts, strict=True))


def _with(example: Example, ids: Callable[[str, str], tuple[str, ...]]) -> Example:
    if "gold_titles" not in example.columns:
        return example
    evidence = tuple(ids(*page) for page in _gold(example))
    return dataclasses.replace(
        example, columns={**example.columns, "evidence": evidence}
    )
