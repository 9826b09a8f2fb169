"""From a configuration to what a run searches."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from grpo_jax import choices
from grpo_jax.retrieval.base import Retriever
from grpo_jax.retrieval.bm25 import open_bm25
from grpo_jax.retrieval.cache import QueryCache
from grpo_jax.retrieval.corpus import Columns
from grpo_jax.retrieval.http import HttpRetriever
from grpo_jax.retrieval_config import RetrievalConfig


def open_retriever(config: RetrievalConfig, mesh: Any = None) -> QueryCache:
    """Returns a retriever that is ready, behind a cache of its answers.

    Args:
      config: sealed.
      mesh: over whose devices the documents of kind "dense" are split; None is the
        first device.

    Raises:
      ConnectionError: a server that does not answer.
      FileNotFoundError: no corpus, index or vectors.
      ValueError: files that cannot be read, or do not belong together.
    """
    return QueryCache(_open(config, mesh), config.cache_entries)


def _open(config: RetrievalConfig, mesh: Any) -> Retriever:
    columns = Columns(config.id_column, config.title_column, config.text_column)
    match config.kind:
        case choices.Retriever.BM25:
            return open_bm25(
                config.corpus_path, config.index_path, columns, config.bm25
            )
        case choices.Retriever.DENSE:
            # It imports jax, which the others do without.
            from grpo_jax.retrieval.dense import open_dense

            encoder = _import_encoder(config.dense.encoder)
            return open_dense(
                config.corpus_path,
                config.index_path,
                columns,
                config.dense,
                encoder,
                mesh=mesh,
            )
        case choices.Retriever.HTTP:
            http = config.http
            retriever = HttpRetriever(
                http.url,
                http.request_shape,
                timeout_seconds=http.timeout_seconds,
                retries=http.retries,
                batch=http.batch,
            )
            retriever.check()
            return retriever


def _import_encoder(name: str) -> Callable[[list[str]], Any]:
    """Returns the function that "package.module:function" names.

    Modules of the current working directory can be named too.
    """
    field = f"config.retrieval.dense.encoder is {name!r}"
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ValueError(f"{field}: write it like package.module:function")
    if os.getcwd() not in sys.path:
        # Last, so that no file of the working directory hides an installed package.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{field}: no module {error.name!r} in {os.getcwd()} or among the "
            "installed packages"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        near = difflib.get_close_matches(attribute, dir(module), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"{field}: {module_name} has no function {attribute!r}{hint}")
    return function
