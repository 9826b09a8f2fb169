"""Documents by vectors: those of a corpus lie on the devices, split over them.

The only module of this package that knows jax; it is imported where it is configured.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from grpo_jax import choices
from grpo_jax.retrieval import index_files
from grpo_jax.retrieval.base import Failure, Found, Hit
from grpo_jax.retrieval.corpus import Columns, Corpus, Counts
from grpo_jax.retrieval_config import DenseConfig

# From texts to one vector each.
Encoder = Callable[[list[str]], Any]

# Rows of the vectors that stand for all in their fingerprint.
_SAMPLED_ROWS = 1024


class Dense:
    """Finds the documents whose vectors are nearest to that of the query.

    Every document is compared: one product on the devices, float32. There are always k
    hits, as far as there are documents, however far they are.
    """

    def __init__(
        self,
        index: index_files.Index,
        vectors: Float[np.ndarray, "N D"],
        encoder: Encoder,
        config: DenseConfig,
        mesh: Mesh | None = None,
    ):
        """Lays the vectors onto the devices.

        Args:
          index: whose corpus the vectors are of.
          vectors: of the documents in order; may be mapped from a file.
          encoder: of queries.
          config: its similarity and batch.
          mesh: over whose devices the documents are split; None is the first device.

        Raises:
          ValueError: a vector that is not finite, or an encoder that does not fit.
        """
        self._index, self._encoder, self._config = index, encoder, config
        self._count, self._width = vectors.shape
        self._mesh = mesh or Mesh(
            jax.devices()[:1], ("all",), axis_types=(AxisType.Auto,)
        )
        self._vectors = self._lay_out(vectors)
        self._nearest = jax.jit(
            functools.partial(_nearest, mesh=self._mesh, count=self._count),
            static_argnums=2,
            out_shardings=NamedSharding(self._mesh, PartitionSpec()),
        )
        self._encode(["What is the capital of France?"])

    @property
    def documents(self) -> Corpus:
        """What is searched."""
        return self._index.corpus

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """Returns for each query the k nearest documents; failures of the encoder."""
        found: list[Found] = []
        size = self._config.batch
        for start in range(0, len(queries), size):
            batch = list(queries[start : start + size])
            try:
                vectors = self._encode(batch)
            except Exception as error:  # of the user's code, or of a server behind it
                found += [Failure(f"the encoder failed: {error!r}")] * len(batch)
                continue
            found += self._search(vectors, min(k, self._count))
        return found

    def describe(self) -> dict[str, Any]:
        """Returns the settings and fingerprints of the index, and the encoder."""
        return self._index.describe(
            encoder=self._config.encoder, similarity=self._config.similarity.value
        )

    def close(self) -> None:
        """Frees the devices' memory."""
        self._vectors.delete()

    def _search(self, vectors: Float[np.ndarray, "queries D"], k: int) -> list[Found]:
        # Few sizes, so that few programs are compiled.
        size = 1 << (len(vectors) - 1).bit_length()
        padded = np.pad(vectors, ((0, size - len(vectors)), (0, 0)))
        # The search has its own devices, whatever mesh the caller computes on.
        with jax.set_mesh(self._mesh):
            scores, rows = self._nearest(self._vectors, padded, k)
        found: list[Found] = []
        for each in zip(np.asarray(rows), np.asarray(scores), strict=True):
            pairs = zip(*(values.tolist() for values in each), strict=True)
            found.append([Hit(self._index.corpus[row], score) for row, score in pairs])
        return found[: len(vectors)]

    def _encode(self, queries: list[str]) -> Float[np.ndarray, "queries D"]:
        vectors = np.asarray(self._encoder(queries), np.float32)
        wanted = (len(queries), self._width)
        if vectors.shape != wanted:
            raise ValueError(
                f"config.retrieval.dense.encoder returned an array of shape "
                f"{vectors.shape} for {len(queries)} queries: it must be {wanted}, as "
                "wide as the vectors of the documents"
            )
        return self._prepared(vectors, "config.retrieval.dense.encoder: vector", 0)

    def _lay_out(self, vectors: Float[np.ndarray, "N D"]) -> Float[Array, "rows D"]:
        """Returns the vectors on the devices, with zeros up to an equal share."""
        total = -(-self._count // self._mesh.size) * self._mesh.size

        def of_device(index: Any) -> Float[np.ndarray, "share D"]:
            start, stop, _ = index[0].indices(total)
            rows = np.asarray(vectors[start:stop], np.float32)
            rows = self._prepared(
                rows, "config.retrieval.dense.vectors_path: row", start
            )
            return np.pad(rows, ((0, stop - start - len(rows)), (0, 0)))

        split = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        return jax.make_array_from_callback((total, self._width), split, of_device)

    def _prepared(
        self, vectors: Float[np.ndarray, "rows D"], what: str, first: int
    ) -> Float[np.ndarray, "rows D"]:
        """Returns vectors checked, and of length 1 where only directions count."""
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise ValueError(f"{what} {first + broken[0]} is not finite")
        if self._config.similarity == choices.Similarity.DOT:
            return vectors
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, np.float32(1))


def open_dense(
    corpus_path: str,
    index_path: str,
    columns: Columns,
    config: DenseConfig,
    encoder: Encoder,
    *,
    mesh: Mesh | None = None,
    rebuild: bool = False,
) -> Dense:
    """Opens vectors with their corpus; the first time, notes that they belong together.

    Args:
      corpus_path: of the documents; "" takes an index as it is.
      index_path: directory of the index; "" is beside the corpus.
      columns: of the corpus.
      config: where the vectors are, and how they are compared.
      encoder: from queries to vectors, [queries, D].
      mesh: over whose devices the documents are split; None is the first device. In
        a run of several processes, all of them must search the same queries together.
      rebuild: makes the index again.

    Raises:
      FileNotFoundError: no vectors, no corpus, or no index.
      ValueError: vectors that do not fit the corpus, or an index of another corpus, of
        other vectors or of other settings.
    """
    path = index_path or index_files.default_path(corpus_path, "dense")
    vectors = _read_vectors(config.vectors_path)
    settings = {"vectors": _fingerprint(vectors)}

    def build(_: pathlib.Path, corpus: Corpus, counts: Counts) -> None:
        if counts.repeated or counts.empty:
            raise ValueError(
                f"{corpus_path} has {counts.repeated} repeated rows and {counts.empty} "
                "rows without a text: take them and their vectors out, so that row i "
                "of the one belongs to row i of the other"
            )
        if len(corpus) != len(vectors):
            raise ValueError(
                f"{config.vectors_path} has {len(vectors)} rows and {corpus_path} has "
                f"{len(corpus)} documents: there must be one vector a document"
            )

    spec = index_files.Spec("dense", settings, corpus_path, columns)
    index = index_files.open_index(pathlib.Path(path), spec, build, rebuild=rebuild)
    return Dense(index, vectors, encoder, config, mesh)


def _nearest(
    vectors: Float[Array, "N D"],
    queries: Float[Array, "queries D"],
    k: int,
    *,
    mesh: Mesh,
    count: int,
) -> tuple[Float[Array, "queries k"], Int[Array, "queries k"]]:
    """Returns scores and rows of the k nearest of the first `count` vectors.

    Every device finds its own k, so that no device sees the scores of another's rows.
    """
    axes = mesh.axis_names

    def of_device(vectors, queries):
        start = jax.lax.axis_index(axes) * len(vectors)
        scores = jnp.einsum(
            "qd,nd->qn", queries, vectors, precision=jax.lax.Precision.HIGHEST
        )
        padding = start + jnp.arange(len(vectors)) >= count
        scores = jnp.where(padding[None], -jnp.inf, scores)
        # Of equal scores top_k takes the first, here and below.
        scores, rows = jax.lax.top_k(scores, min(k, len(vectors)))
        return scores, rows + start

    split = PartitionSpec(axes)
    scores, rows = jax.shard_map(
        of_device,
        mesh=mesh,
        in_specs=(split, PartitionSpec()),
        out_specs=PartitionSpec(None, axes),
    )(vectors, queries)
    scores, places = jax.lax.top_k(scores, k)
    return scores, jnp.take_along_axis(rows, places, axis=1)


def _read_vectors(path: str) -> Float[np.ndarray, "N D"]:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is no .npy file of numbers ({error})") from error
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(
            f"{path} is {vectors.dtype} of shape {vectors.shape}: it must be floats of "
            "shape [documents, D]"
        )
    return vectors


def _fingerprint(vectors: Float[np.ndarray, "N D"]) -> str:
    """Returns what changes with the shape, the type and, very likely, the values."""
    rows = np.linspace(0, len(vectors) - 1, min(_SAMPLED_ROWS, len(vectors)))
    facts = json.dumps([vectors.shape, str(vectors.dtype)]).encode()
    sample = np.ascontiguousarray(vectors[rows.astype(int)])
    return hashlib.sha256(facts + sample.tobytes()).hexdigest()[:16]
