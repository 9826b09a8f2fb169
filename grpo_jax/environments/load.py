"""From a configuration to the environment of a run."""

from typing import Any

from grpo_jax.config import TrainConfig
from grpo_jax.environments.base import Environment
from grpo_jax.environments.calculator import Calculator
from grpo_jax.environments.search import Search
from grpo_jax.imports import import_function
from grpo_jax.retrieval.load import open_documents, open_retriever
from grpo_jax.rewards.tags import tag_set
from grpo_jax.tasks.base import Task

_BUILT_IN = ("search", "calculator")


def searches_task(config: TrainConfig) -> bool:
    """Returns whether a run searches the documents that its task brings."""
    searches = config.episode.environment == "search"
    return searches and not config.retrieval.names_documents


def open_environment(
    config: TrainConfig, task: Task, mesh: Any = None
) -> Environment | None:
    """Returns the environment that `config.episode` names; None where it names none.

    A search looks through `config.retrieval`, or where that names no documents and no
    server through those that the task brings.

    Args:
      config: sealed.
      task: of the run.
      mesh: over whose devices vectors are split.

    Raises:
      ConnectionError: a retrieval server that does not answer.
      FileNotFoundError: no corpus, index or vectors.
      ValueError: there is no such environment, or nothing to search.
    """
    match config.episode.environment:
        case "":
            return None
        case "search":
            retrieval = config.retrieval
            if retrieval.names_documents:
                retriever = open_retriever(retrieval, mesh)
            elif task.documents:
                retriever = open_documents(task.documents, retrieval)
            else:
                raise ValueError(
                    f"there is nothing to search: task {task.name!r} brings no "
                    "documents; set config.retrieval.corpus_path or "
                    "config.retrieval.index_path, or config.retrieval.kind=http"
                )
            return Search(retriever, tag_set(config.task.tags), retrieval.top_k)
        case "calculator":
            return Calculator()
        case name:
            make = import_function(name, "config.episode.environment", _BUILT_IN)
            return make()
