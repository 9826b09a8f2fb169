"""Small corpora and retrievers that several tests share."""

import json
import pathlib
import re
import zlib

import numpy as np

from grpo_jax.retrieval.base import Document, Failure, Hit

DOCUMENTS = [
    Document("a", "Laleli Mosque", "A mosque in Istanbul, built for Mustafa III."),
    Document("b", "Esma Sultan Mansion", "A mansion at the Bosphorus in Istanbul."),
    Document("c", "Mustafa III", "He was the sultan of the Ottoman Empire."),
    Document("d", "Küçük Hüseyin Pasha", "An admiral."),
]


def write_rows(path: pathlib.Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_corpus(path: pathlib.Path, documents=DOCUMENTS) -> str:
    return write_rows(path, [vars(document) for document in documents])


def hashed(texts: list[str], width: int = 16) -> np.ndarray:
    """Counts of words by a hash of them: whole numbers, so that products are exact."""
    vectors = np.zeros((len(texts), width), np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            vectors[row, zlib.crc32(word.encode()) % width] += 1
    return vectors


def titles(found) -> list[str]:
    assert not isinstance(found, Failure), found
    return [hit.document.title for hit in found]


class Scripted:
    """A retriever that says what it was told to, and remembers what it was asked."""

    documents = ()

    def __init__(self, failing=()):
        self.asked, self.failing, self.closed = [], set(failing), False

    def search(self, queries, k):
        self.asked.append((list(queries), k))
        return [
            Failure(f"no {query}")
            if query in self.failing
            else [Hit(Document(f"{query}{i}", "", query), float(i)) for i in range(k)]
            for query in queries
        ]

    def describe(self):
        return {"kind": "scripted"}

    def close(self):
        self.closed = True
