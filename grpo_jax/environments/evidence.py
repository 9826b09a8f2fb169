"""Which of the documents that a run searches its questions need."""

import dataclasses
from typing import NamedTuple

from grpo_jax.config import RetrievalConfig
from grpo_jax.environments.base import Environment
from grpo_jax.environments.search import Search
from grpo_jax.tasks import corpus
from grpo_jax.tasks.base import Task

_SPLITS = ("train", "validation", "test")
_EXAMPLES = 3


class Found(NamedTuple):
    """A task whose evidence is in what is searched.

    Attributes:
      task: with the column "evidence" of its examples.
      warning: which gold pages are not there; "" where all are.
    """

    task: Task
    warning: str


def find(
    task: Task, environment: Environment | None, retrieval: RetrievalConfig
) -> Found:
    """Finds the gold pages of a task's questions in what `retrieval` searches.

    A task's own documents need no such thing: it has named its evidence. Documents of a
    server cannot be gone through: there evidence is by title, and the titles that it
    sends are what is recorded as shown.

    Args:
      task: of the run.
      environment: as `open_environment` made it of `retrieval`.
      retrieval: sealed.

    Raises:
      ValueError: no gold page of any question is in the corpus.
    """
    if not isinstance(environment, Search) or not retrieval.names_documents:
        return Found(task, "")
    documents = environment.documents
    everything = [example for name in _SPLITS for example in getattr(task, name)]
    if documents is None:
        found = corpus.with_titles_as_evidence(everything)
    else:
        found = corpus.with_evidence(everything, documents)
    missing = corpus.missing_titles(found)
    if missing.share == 1:
        raise ValueError(f"{_sentence(missing, retrieval)}: {_REMEDY}")
    rest = iter(found)
    splits = {name: [next(rest) for _ in getattr(task, name)] for name in _SPLITS}
    warning = f"warning: {_sentence(missing, retrieval)}" if missing.titles else ""
    return Found(dataclasses.replace(task, **splits), warning)


_REMEDY = (
    "search the corpus that the questions were made of, or name the column with its "
    "titles in config.retrieval.title_column"
)


def _sentence(missing: corpus.MissingTitles, retrieval: RetrievalConfig) -> str:
    some = ", ".join(map(repr, missing.titles[:_EXAMPLES]))
    return (
        f"{len(missing.titles)} titles of pages that questions need, such as {some}, "
        f"are no title in {retrieval.corpus_path or retrieval.index_path}: "
        f"{missing.share:.1%} of the evidence cannot be found"
    )
