"""BM25: how often the words of a query are in a document, and how rare they are."""

import logging
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_jax.retrieval import index_files
from grpo_jax.retrieval.base import Found, Hit, top
from grpo_jax.retrieval.corpus import Columns, Corpus, Counts
from grpo_jax.retrieval.words import splitter
from grpo_jax.retrieval_config import Bm25Config


class Bm25:
    r"""Finds documents by their words, in this process.

        score(q, d) = sum over words w of q of
            log(1 + (N - n_w + 0.5) / (n_w + 0.5)) * f_wd / (f_wd + k1 (1 - b + b l_d))

    with N documents, n_w of them with w, f_wd times w in d, and l_d the length of d
    over the mean length. Titles count as text. Documents without a word of the query
    are no hits, so that there can be fewer than k.

    Source: Robertson and Zaragoza 2009, with Lucene's first factor; computed by bm25s,
    which keeps the summands (Lù 2024, arXiv 2407.03618).
    """

    def __init__(self, index: index_files.Index):
        """Opens the files of an index that `open_bm25` has made or checked."""
        settings = index.manifest["settings"]
        self._index = index
        self._words = splitter(
            stop_words=settings["stop_words"], stemming=settings["stemming"]
        )
        self._bm25 = _import_bm25s().BM25.load(index.path, mmap=True)
        # Plain arrays over the mapped files: numpy slices them faster.
        arrays = self._bm25.scores
        for name in ("data", "indices", "indptr"):
            arrays[name] = np.asarray(arrays[name])

    @property
    def index(self) -> index_files.Index:
        """What is searched."""
        return self._index

    @property
    def documents(self) -> Corpus:
        """What is searched."""
        return self._index.corpus

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """Returns for each query at most k documents with its words, best first."""
        return [self._search(query, k) for query in queries]

    def _search(self, query: str, k: int) -> Found:
        vocabulary = self._bm25.vocab_dict
        words = self._words(query)
        ids = [vocabulary[word] for word in words if word in vocabulary]
        if not ids:
            return []
        scores = self._bm25.get_scores_from_ids(ids)
        found = top(scores, k).tolist()
        return [Hit(self._index.corpus[i], float(scores[i])) for i in found]

    def describe(self) -> dict[str, Any]:
        """Returns the settings and fingerprints of the index."""
        return self._index.describe()

    def close(self) -> None:
        """Nothing was started."""


def open_bm25(
    corpus_path: str,
    index_path: str,
    columns: Columns,
    config: Bm25Config,
    *,
    rebuild: bool = False,
) -> Bm25:
    """Opens the index of a corpus, or makes it where there is none.

    Args:
      corpus_path: of the documents; "" takes an index as it is.
      index_path: directory of the index; "" is beside the corpus.
      columns: of the corpus.
      config: what the index depends on besides.
      rebuild: makes the index again.

    Raises:
      FileNotFoundError: no corpus, or no index.
      ValueError: a corpus that cannot be read or has no word, or an index of another
        corpus or of other settings.
    """
    path = index_path or index_files.default_path(corpus_path, "bm25")
    library = _import_bm25s()
    settings = {
        "k1": float(config.k1),
        "b": float(config.b),
        "stop_words": config.stop_words,
        "stemming": config.stemming,
        # Releases with the same two numbers read each other's files.
        "bm25s": ".".join(library.__version__.split(".")[:2]),
    }
    split = splitter(stop_words=config.stop_words, stemming=config.stemming)

    def build(directory: pathlib.Path, corpus: Corpus, _: Counts) -> None:
        vocabulary: dict[str, int] = {}
        ids = [
            [
                vocabulary.setdefault(word, len(vocabulary))
                for word in split(f"{document.title} {document.text}")
            ]
            for document in corpus
        ]
        if not vocabulary:
            raise ValueError(
                f"{corpus_path}: no document has a word that counts; stop words do not"
            )
        made = library.BM25(k1=config.k1, b=config.b)
        made.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        made.save(directory, show_progress=False)

    spec = index_files.Spec("bm25", settings, corpus_path, columns)
    index = index_files.open_index(pathlib.Path(path), spec, build, rebuild=rebuild)
    return Bm25(index)


def _import_bm25s() -> Any:
    """Imports bm25s without the jax that it looks for.

    When it is imported it runs one operation of jax, which takes hold of the
    accelerator: too early for a run of several hosts, and too much for a search.
    """
    jax = sys.modules.get("jax")
    sys.modules["jax"] = None  # pyright: ignore[reportArgumentType]
    try:
        import bm25s
    finally:
        del sys.modules["jax"]
        if jax is not None:
            sys.modules["jax"] = jax
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s
