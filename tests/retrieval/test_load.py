"""Each kind of retriever comes from its configuration."""

import socket

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.retrieval.load import open_retriever
from grpo_jax.retrieval_config import RetrievalConfig
from tests.retrieval.helpers import DOCUMENTS, hashed, titles, write_corpus

KINDS = choices.Retriever


@pytest.fixture
def config(tmp_path):
    return RetrievalConfig(corpus_path=write_corpus(tmp_path / "c.jsonl"))


def opened(config):
    return open_retriever(config.seal("config.retrieval"))


def test_bm25(config, tmp_path):
    config.index_path = str(tmp_path / "index")
    config.bm25.stop_words = False
    retriever = opened(config)
    assert titles(retriever.search(["sultan mansion"], 1)[0]) == ["Esma Sultan Mansion"]
    assert retriever.describe()["settings"]["stop_words"] is False
    assert (tmp_path / "index" / "manifest.json").exists()


def test_columns(config):
    config.text_column = "title"
    retriever = opened(config)
    assert retriever.search(["mosque"], 1)[0][0].document.text == "Laleli Mosque"
    assert retriever.search(["bosphorus"], 1)[0] == []


def dense(config, folder, encoder):
    config.kind = KINDS.DENSE
    np.save(folder / "v.npy", hashed([document.text for document in DOCUMENTS]))
    config.dense.vectors_path = str(folder / "v.npy")
    config.dense.encoder = encoder
    config.dense.similarity = choices.Similarity.DOT
    return config


def test_dense(config, tmp_path):
    dense(config, tmp_path, "tests.retrieval.helpers:hashed")
    retriever = opened(config)
    found = retriever.search([DOCUMENTS[2].text], 2)
    assert titles(found[0])[0] == "Mustafa III"
    assert retriever.describe()["encoder"] == "tests.retrieval.helpers:hashed"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("hashed", "it must be 'package.module:function'"),
        ("no_such.module:f", "no module 'no_such'; start where"),
        ("tests.retrieval.helpers:hash", "no function 'hash'; it has .*'hashed'"),
    ],
)
def test_an_encoder_that_is_not_there(config, tmp_path, encoder, message):
    with pytest.raises(ValueError, match=f"encoder is {encoder!r}: .*{message}"):
        opened(dense(config, tmp_path, encoder))


def test_a_server_that_is_down_stops_the_start():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/retrieve"
    config = RetrievalConfig(kind=KINDS.HTTP)
    config.http.url, config.http.retries = url, 0
    with pytest.raises(ConnectionError, match=f"{url}: .*refused.*Start the server"):
        opened(config)


def test_answers_are_kept(config):
    retriever = opened(config)
    retriever.search(["mosque", "mosque"], 1)
    retriever.search(["mosque"], 1)
    assert retriever.take_metrics()["retrieval/asked"] == 1
