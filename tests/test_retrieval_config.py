"""What a retriever needs is asked for by its name."""

import ast
import dataclasses
import pathlib

import pytest

from grpo_jax import choices, retrieval_config
from grpo_jax.retrieval_config import RetrievalConfig

ROOT = pathlib.Path(__file__).parents[1]
DENSE = dict(kind=choices.Retriever.DENSE, corpus_path="c.jsonl")
HTTP = dict(kind=choices.Retriever.HTTP)


def changed(**fields) -> RetrievalConfig:
    config = RetrievalConfig()
    for path, value in fields.items():
        section, _, name = path.rpartition("__")
        setattr(getattr(config, section) if section else config, name, value)
    return config


@pytest.mark.parametrize(
    "fields",
    [
        dict(corpus_path="c.jsonl"),
        dict(index_path="c.bm25"),
        DENSE | dict(dense__vectors_path="v.npy", dense__encoder="m:f"),
        HTTP | dict(http__url="https://localhost/retrieve"),
    ],
)
def test_what_each_kind_needs_is_enough(fields):
    assert changed(**fields).seal("config.retrieval")._sealed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {},
            "retrieval.corpus_path and config.retrieval.index_path are empty and conf",
        ),
        (DENSE | dict(corpus_path=""), "corpus_path and .*kind is Retriever.DENSE"),
        (DENSE, "config.retrieval.dense.vectors_path is empty"),
        (DENSE | dict(dense__vectors_path="v"), "retrieval.dense.encoder is empty"),
        (HTTP, "config.retrieval.http.url is '' and config.retrieval.kind is Retr"),
        (HTTP | dict(http__url="localhost:80"), "http.url is 'localhost:80'"),
        (dict(top_k=0), "config.retrieval.top_k is 0: use at least 1"),
        (dict(cache_entries=-1), "cache_entries is -1"),
        (dict(bm25__k1=-0.1), "config.retrieval.bm25.k1 is -0.1"),
        (dict(bm25__b=1.1), "bm25.b is 1.1: use a value from 0 to 1"),
        (dict(dense__batch=0), "dense.batch is 0"),
        (dict(http__batch=0), "http.batch is 0"),
        (dict(http__retries=-1), "http.retries is -1"),
        (dict(http__timeout_seconds=0.0), "timeout_seconds is 0.0"),
        (dict(kind="bm25"), "config.retrieval.kind is 'bm25'"),
    ],
)
def test_impossible_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        config = changed(**fields).seal("config.retrieval")
        config.check_complete("config.retrieval")  # what a search needs


def test_nothing_need_be_there_where_nobody_searches():
    assert not RetrievalConfig().seal("config.retrieval").names_documents


def test_every_field_is_read():
    # top_k is for whoever asks the queries.
    read = {"top_k"}
    for path in (ROOT / "grpo_jax" / "retrieval").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    for section in vars(retrieval_config).values():
        if isinstance(section, type) and dataclasses.is_dataclass(section):
            assert {field.name for field in dataclasses.fields(section)} <= read
