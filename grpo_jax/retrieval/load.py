"""From a configuration to what a run searches."""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from grpo_jax import choices
from grpo_jax.imports import import_function
from grpo_jax.retrieval.base import Document, Retriever
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
      ValueError: nothing is named, or files that cannot be read or do not belong
        together.
    """
    config.check_complete("config.retrieval")
    return QueryCache(_open(config, mesh), config.cache_entries)


def open_documents(
    documents: Sequence[Document], config: RetrievalConfig
) -> QueryCache:
    """Returns a BM25 retriever of documents that a task brings.

    Its index is in a directory of its own, which is gone with the process.
    """
    folder = tempfile.TemporaryDirectory(prefix="documents_")
    path = pathlib.Path(folder.name) / "documents.jsonl"
    lines = (json.dumps(dataclasses.asdict(each)) for each in documents)
    path.write_text("\n".join(lines) + "\n")
    retriever = open_bm25(str(path), "", Columns(), config.bm25)
    return QueryCache(retriever, config.cache_entries, on_close=folder.cleanup)


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

            encoder = import_function(
                config.dense.encoder, "config.retrieval.dense.encoder"
            )
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
