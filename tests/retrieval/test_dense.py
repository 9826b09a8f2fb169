"""The nearest vectors, exactly, on one device and on eight."""

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.retrieval.base import Document, Failure
from grpo_jax.retrieval.corpus import Columns
from grpo_jax.retrieval.dense import open_dense
from grpo_jax.retrieval_config import DenseConfig
from tests.retrieval.helpers import hashed, write_corpus

DOT, COSINE = choices.Similarity.DOT, choices.Similarity.COSINE
QUERIES = ["3 1 4", "15", "9 2 6", "", "5 3 5 8"]


def documents(count):
    rng = np.random.default_rng(1)
    texts = [" ".join(map(str, rng.integers(0, 20, 4))) for _ in range(count)]
    return [Document(str(i), "", text) for i, text in enumerate(texts)]


def written(folder, docs, vectors=None):
    corpus, path = write_corpus(folder / "c.jsonl", docs), folder / "v.npy"
    if vectors is None:
        vectors = hashed([document.text for document in docs])
    np.save(path, vectors)
    return corpus, str(path)


def opened(folder, similarity=DOT, encoder=hashed, **options):
    batch = options.pop("batch", 4)
    config = DenseConfig(f"{folder}/v.npy", "m:f", similarity, batch)
    return open_dense(f"{folder}/c.jsonl", "", Columns(), config, encoder, **options)


def eight():
    return jax.make_mesh(
        (2, 4), ("data", "fsdp"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )


def brute_force(docs, queries, k, similarity):
    vectors, asked = hashed([d.text for d in docs]), hashed(queries)
    if similarity == COSINE:
        vectors, asked = (
            v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9)
            for v in (vectors, asked)
        )
    scores = asked @ vectors.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("mesh", [None, eight])
@pytest.mark.parametrize("count", [1, 5, 37, 64])
def test_dot_products_are_exactly_those_of_numpy(tmp_path, mesh, count):
    docs = documents(count)
    written(tmp_path, docs)
    found = opened(tmp_path, mesh=mesh and mesh()).search(QUERIES, 7)
    rows, scores = brute_force(docs, QUERIES, 7, DOT)
    # Whole numbers: many are equal, and the earlier document comes first.
    assert [[int(hit.document.id) for hit in each] for each in found] == rows.tolist()
    assert [[hit.score for hit in each] for each in found] == scores.tolist()


@pytest.mark.parametrize("mesh", [None, eight])
def test_cosines(tmp_path, mesh):
    docs = documents(37)
    written(tmp_path, docs)
    found = opened(tmp_path, COSINE, mesh=mesh and mesh()).search(QUERIES, 7)
    _, scores = brute_force(docs, QUERIES, 7, COSINE)
    got = np.array([[hit.score for hit in each] for each in found])
    np.testing.assert_allclose(got, scores, atol=1e-6)
    assert got.max() <= 1 + 1e-6
    # An empty query has no direction.
    assert got[3].tolist() == [0.0] * 7


def test_what_fills_the_devices_up_is_never_found(tmp_path):
    docs = documents(9)
    written(tmp_path, docs, np.full((9, 16), -1, np.float32))
    found = opened(tmp_path, mesh=eight()).search(["1 2"], 20)[0]
    assert [hit.document for hit in found] == docs
    assert {hit.score for hit in found} == {-2.0}


def test_hits_do_not_depend_on_the_batch(tmp_path):
    written(tmp_path, documents(20))
    one, many = opened(tmp_path, batch=1), opened(tmp_path, batch=64)
    assert one.search(QUERIES, 3) == many.search(QUERIES, 3)


def test_a_batch_size_is_compiled_once(tmp_path):
    written(tmp_path, documents(20))
    retriever = opened(tmp_path, batch=8)
    for count in (1, 2, 3, 4, 5, 3, 4, 7, 8, 9):
        retriever.search(["1"] * count, 3)
    assert retriever._nearest._cache_size() == 4  # of 1, 2, 4 and 8 queries


def test_a_search_has_its_own_devices(tmp_path):
    written(tmp_path, documents(20))
    retriever = opened(tmp_path)
    with jax.set_mesh(eight()):
        inside = retriever.search(QUERIES, 3)
    assert inside == retriever.search(QUERIES, 3)


def test_the_vectors_are_split_over_the_mesh(tmp_path):
    written(tmp_path, documents(20))
    retriever = opened(tmp_path, mesh=eight())
    shards = retriever._vectors.addressable_shards
    assert [shard.data.shape for shard in shards] == [(3, 16)] * 8
    vectors = retriever._vectors
    retriever.close()
    assert vectors.is_deleted()


def test_an_encoder_that_fails_is_a_failure_of_its_queries(tmp_path):
    written(tmp_path, documents(20))

    def failing(texts):
        if "15" in texts:
            raise OSError("out of order")
        return hashed(texts)

    found = opened(tmp_path, encoder=failing, batch=2).search(QUERIES, 3)
    failure = Failure("the encoder failed: OSError('out of order')")
    assert found[:2] == [failure] * 2
    assert [len(hits) for hits in found[2:]] == [3] * 3


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            lambda texts: hashed(texts, 8),
            r"of shape \(1, 8\) for 1 .* must be \(1, 16\)",
        ),
        (lambda texts: hashed(texts)[0], r"of shape \(16,\)"),
        (lambda texts: hashed(texts) * np.nan, "encoder: vector 0 is not finite"),
    ],
)
def test_an_encoder_that_does_not_fit_is_told_at_the_start(tmp_path, encoder, message):
    written(tmp_path, documents(5))
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, encoder=encoder)


def test_vectors_must_be_of_these_documents(tmp_path):
    docs = documents(20)
    written(tmp_path, docs[:19], hashed([d.text for d in docs]))
    with pytest.raises(ValueError, match="20 rows and .* has 19 documents"):
        opened(tmp_path)
    written(tmp_path, docs)
    first = opened(tmp_path).describe()
    assert first == opened(tmp_path).describe()
    assert first["fingerprint"] != opened(tmp_path, COSINE).describe()["fingerprint"]
    np.save(tmp_path / "v.npy", hashed([d.text for d in docs[::-1]]))
    with pytest.raises(ValueError, match="dense was made with vectors = "):
        opened(tmp_path)
    written(tmp_path, docs[::-1], hashed([d.text for d in docs]))
    with pytest.raises(ValueError, match="now holds something else"):
        opened(tmp_path)


def test_rows_that_a_corpus_leaves_out_would_shift_the_vectors(tmp_path):
    docs = documents(5)
    written(tmp_path, [*docs, docs[0], Document("z", "", "")])
    with pytest.raises(ValueError, match="1 repeated rows and 1 rows without a text"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros(3, np.float32), r"float32 of shape \(3,\)"),
        (np.zeros((5, 2), np.int32), "int32"),
        (np.full((5, 16), np.nan, np.float16), "vectors_path: row 0 is not finite"),
        (np.array([{}]), "no .npy file of numbers"),
    ],
)
def test_files_that_are_no_vectors(tmp_path, vectors, message):
    written(tmp_path, documents(5), vectors)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_vectors_that_are_not_there(tmp_path):
    write_corpus(tmp_path / "c.jsonl")
    with pytest.raises(FileNotFoundError, match="v.npy"):
        opened(tmp_path)
