r"""Searches documents as an agent would, and makes the index first if there is none.

    python -m grpo_jax.search --corpus=wiki.jsonl --query="Who built the mosque?"
    python -m grpo_jax.search --corpus=notes/ --index=runs/notes.bm25 --build_only
    python -m grpo_jax.search --url=http://localhost:8000/retrieve --query="..."

The corpus is JSONL or Parquet, a directory, a glob, hub:dataset:split, or a directory
of .txt and .md files. docs/retrieval.md says more. Without --query, each line of
standard input is one.
"""

import sys
from collections.abc import Iterable

from absl import flags

from grpo_jax import choices, doors
from grpo_jax.reporting.terminal import printable
from grpo_jax.retrieval.base import Failure, Retriever
from grpo_jax.retrieval.bm25 import Bm25, open_bm25
from grpo_jax.retrieval.corpus import Columns
from grpo_jax.retrieval.http import HttpRetriever
from grpo_jax.retrieval_config import Bm25Config

_CORPUS = flags.DEFINE_string("corpus", "", "Documents. Empty: those of the index.")
_INDEX = flags.DEFINE_string("index", "", "Its directory. Default: CORPUS.bm25.")
_QUERY = flags.DEFINE_multi_string("query", [], "A query; may be repeated.")
_TOP_K = flags.DEFINE_integer("top_k", 3, "Documents a query.", lower_bound=1)
_BUILD_ONLY = flags.DEFINE_bool("build_only", False, "Make the index, ask nothing.")
_REBUILD = flags.DEFINE_bool("rebuild", False, "Make the index again.")
_COLUMNS = {
    "id": flags.DEFINE_string("id_column", "", "Default: id, _id, doc_id or docid."),
    "title": flags.DEFINE_string("title_column", "", "Default: title."),
    "text": flags.DEFINE_string(
        "text_column", "", "Default: text, contents, content, passage or paragraph."
    ),
}
_K1 = flags.DEFINE_float("k1", 1.5, "How much a repeated word counts.", lower_bound=0)
_B = flags.DEFINE_float(
    "b", 0.75, "How much long documents are held back.", lower_bound=0, upper_bound=1
)
_STOP_WORDS = flags.DEFINE_bool("stop_words", True, "Leave English ones out.")
_STEMMING = flags.DEFINE_bool("stemming", False, "Cut English endings off.")
_URL = flags.DEFINE_string("url", "", "Ask this server instead of an index.")
_SHAPE = flags.DEFINE_enum_class(
    "request_shape", choices.RequestShape.SEARCH_R1, choices.RequestShape, "Of the url."
)


def main(_: list[str]) -> None:
    """Opens the index or the server, and prints what it finds."""
    retriever = _open()
    if isinstance(retriever, Bm25):
        _print_index(retriever)
    for query in () if _BUILD_ONLY.value else _queries():
        print(f"\n{printable(query)}")
        found = retriever.search([query], _TOP_K.value)[0]
        if isinstance(found, Failure):
            raise ConnectionError(found.reason)
        for rank, hit in enumerate(found, start=1):
            document = hit.document
            title = f"{document.title} " if document.title else ""
            print(f"{rank}. {printable(title)}[{document.id}] {hit.score:.3f}")
            print(f"   {printable(document.text)}")
        if not found:
            print("nothing")
    retriever.close()


def _open() -> Retriever:
    if _URL.value:
        retriever = HttpRetriever(_URL.value, _SHAPE.value, retries=0)
        retriever.check()
        return retriever
    if not _CORPUS.value and not _INDEX.value:
        raise ValueError("--corpus is missing: name documents, an --index or a --url")
    return open_bm25(
        _CORPUS.value,
        _INDEX.value,
        Columns(**{kind: flag.value for kind, flag in _COLUMNS.items()}),
        Bm25Config(_K1.value, _B.value, _STOP_WORDS.value, _STEMMING.value),
        rebuild=_REBUILD.value,
    )


def _print_index(retriever: Bm25) -> None:
    index = retriever.index
    counts = index.manifest["corpus"]["counts"]
    print(
        f"{index.path}: {'made of' if index.built else 'has'} {counts['documents']} "
        f"documents, {counts['untitled']} of them without a title; left out: "
        f"{counts['repeated']} repeated, {counts['empty']} empty",
        flush=True,
    )


def _queries() -> Iterable[str]:
    if _QUERY.value:
        return _QUERY.value
    return (line.strip() for line in sys.stdin if line.strip())


if __name__ == "__main__":
    doors.run(main)
