"""What a run searches: where documents come from, and how they are found.

docs/retrieval.md describes the retrievers.
"""

import dataclasses

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, fraction, positive


@dataclasses.dataclass
class Bm25Config(Section):
    """The index of kind "bm25". Another value of any of these is another index."""

    k1: float = 1.5  # how much a word counts that is repeated
    b: float = 0.75  # how much long documents are held back
    stop_words: bool = True  # leave English ones out
    stemming: bool = False  # cut English endings off; needs PyStemmer

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, k1=0)
        fraction(path, self, "b")


@dataclasses.dataclass
class DenseConfig(Section):
    """The vectors of kind "dense"."""

    # .npy file of one row a document, in the order of the corpus.
    vectors_path: str = ""
    # "package.module:function", from a list of queries to their vectors, [N, D].
    encoder: str = ""
    similarity: choices.Similarity = choices.Similarity.COSINE
    batch: int = 64  # queries in one product

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, batch=1)


@dataclasses.dataclass
class HttpConfig(Section):
    """The server of kind "http"."""

    url: str = ""  # such as "http://localhost:8000/retrieve"
    request_shape: choices.RequestShape = choices.RequestShape.SEARCH_R1
    timeout_seconds: float = 10.0  # for one whole answer
    retries: int = 3  # after a growing time
    batch: int = 64  # queries in one request

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, retries=0, batch=1)
        positive(path, self, "timeout_seconds")


@dataclasses.dataclass
class RetrievalConfig(Section):
    """Documents for the queries of a search agent."""

    kind: choices.Retriever = choices.Retriever.BM25
    top_k: int = 3  # documents a query
    # JSONL or Parquet, a directory, a glob, hub:dataset:split, or text files. Empty:
    # that of the index, as it is.
    corpus_path: str = ""
    # Directory of the index. Empty: beside the corpus.
    index_path: str = ""
    # Empty: the usual names.
    id_column: str = ""
    title_column: str = ""
    text_column: str = ""
    cache_entries: int = 10_000  # queries whose hits are kept. 0: none
    bm25: Bm25Config = dataclasses.field(default_factory=Bm25Config)
    dense: DenseConfig = dataclasses.field(default_factory=DenseConfig)
    http: HttpConfig = dataclasses.field(default_factory=HttpConfig)

    def validate(self, path: str):
        """Checks ranges; `check_complete` is for whoever is going to search."""
        at_least(path, self, top_k=1, cache_entries=0)

    @property
    def names_documents(self) -> bool:
        """Whether it says what to search."""
        local = self.corpus_path or self.index_path
        return bool(local) or self.kind is choices.Retriever.HTTP

    def check_complete(self, path: str):
        """Checks that what the chosen kind needs is there.

        Raises:
          ValueError: it is not, with the field to set.
        """
        kind = f"{path}.kind is {self.kind}"
        if self.kind == choices.Retriever.HTTP:
            if not self.http.url.startswith(("http://", "https://")):
                raise ValueError(
                    f"{path}.http.url is {self.http.url!r} and {kind}: write it like "
                    "http://localhost:8000/retrieve"
                )
            return
        if not self.corpus_path and not self.index_path:
            raise ValueError(
                f"{path}.corpus_path and {path}.index_path are empty and {kind}: name "
                "the documents, or an index of them"
            )
        if self.kind == choices.Retriever.DENSE:
            for name in ("vectors_path", "encoder"):
                if not getattr(self.dense, name):
                    raise ValueError(f"{path}.dense.{name} is empty and {kind}: set it")
