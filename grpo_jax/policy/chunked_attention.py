"""Causal attention in memory that grows with T and not with T squared, in plain XLA.

Queries and keys are cut into blocks. One scan walks the pairs of a query block and a
key block that is not in its future, so that half of the square is never computed, and
only one block of scores exists at a time. The forward pass keeps a running softmax; the
backward pass recomputes the scores from the saved log-sum-exp, one number a query.

Letters: I query blocks and U key blocks, which are equally many and equally long; Q
queries of a block, for the R heads of a key-value head side by side; S keys of a block.

Source: FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2. They loop over blocks
within blocks; a list of pairs gives one loop whose length the compiler knows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from grpo_jax.policy import remat

# Faster and smaller than 128 and 512 on a CPU from T = 512 to 4096.
LARGEST_BLOCK = 256

_at = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
_put = functools.partial(jax.lax.dynamic_update_index_in_dim, axis=0)
_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def causal(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B T J K"],
    value: Float[Array, "B T J K"],
    *,
    largest_block: int = LARGEST_BLOCK,
) -> Float[Array, "B T H K"]:
    """Returns what `attention.causal` does, without its scores of [B, H, T, T]."""
    size = block_tokens(query.shape[1], largest_block, 8)
    return _attend(query, key, value, size)


def block_tokens(tokens: int, largest: int, multiple: int) -> int:
    """Returns the length of equal blocks that hold `tokens` with little padding.

    Args:
      tokens: what is cut, at least 1.
      largest: no block is longer; divisible by `multiple`.
      multiple: what divides the length.
    """
    count = -(-tokens // largest)
    return -(-tokens // (count * multiple)) * multiple


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query: Array, key: Array, value: Array, size: int) -> Array:
    return _forward(query, key, value, size)[0]


def _forward(
    query: Array, key: Array, value: Array, size: int
) -> tuple[Array, tuple[Array, ...]]:
    """Returns the output [B, T, H, K], and what the backward pass needs."""
    T, J = key.shape[1:3]
    query_IBJQK = _cut(query, J, size)
    key_UBJSK, value_UBJSK = _cut(key, J, size), _cut(value, J, size)
    mixed_IBJQK = jnp.zeros(query_IBJQK.shape, jnp.float32)
    sum_IBJQ1 = jnp.zeros_like(mixed_IBJQK[..., :1])

    def step(carry: tuple[Array, ...], pair: tuple[Array, Array]):
        i, u = pair
        mixed, peak, total = (_at(x, i) for x in carry)
        scores_BJQS = _scores(_at(query_IBJQK, i), _at(key_UBJSK, u), i, u, size)
        # Key block 0 comes first and everyone sees key 0: the peak is finite from
        # then on, and what is masked is an exact 0.
        new_peak = jnp.maximum(peak, scores_BJQS.max(-1, keepdims=True))
        weights_BJQS = jnp.exp(scores_BJQS - new_peak)
        fade = jnp.exp(peak - new_peak)
        total = total * fade + weights_BJQS.sum(-1, keepdims=True)
        weights_BJQS = weights_BJQS.astype(value.dtype)
        mixed = mixed * fade + _dot(
            "bjqs,bjsk->bjqk", weights_BJQS, _at(value_UBJSK, u)
        )
        new = (mixed, new_peak, total)
        return tuple(_put(x, y, i) for x, y in zip(carry, new, strict=True)), None

    start = (mixed_IBJQK, jnp.full_like(sum_IBJQ1, -jnp.inf), sum_IBJQ1)
    (mixed_IBJQK, peak_IBJQ1, sum_IBJQ1), _ = jax.lax.scan(
        step, start, _pairs(query_IBJQK)
    )
    mixed_BTHK = _join(mixed_IBJQK / sum_IBJQ1, T, size).astype(query.dtype)
    mixed_BTHK = remat.name_output(mixed_BTHK)
    log_sum_IBJQ1 = remat.name_output(peak_IBJQ1 + jnp.log(sum_IBJQ1))
    return mixed_BTHK, (query, key, value, mixed_BTHK, log_sum_IBJQ1)


def _backward(
    size: int, saved: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, Array]:
    """Returns the gradients of query, key and value.

    With p the weights, g the gradient of the output o and s the scores before scaling:
    ds = p (g v - g o) / sqrt(K), and dq = ds k, dk = ds q, dv = p g.
    """
    query, key, value, mixed, log_sum_IBJQ1 = saved
    (T, J, K), dtype = key.shape[1:], query.dtype
    along_BTH1 = (gradient.astype(jnp.float32) * mixed).sum(-1, keepdims=True)
    # What belongs to a query block, and what belongs to a key block.
    of_queries = [_cut(x, J, size) for x in (query, gradient, along_BTH1)]
    of_keys = [_cut(x, J, size) for x in (key, value)]

    def step(carry: tuple[Array, ...], pair: tuple[Array, Array]):
        i, u = pair
        query_BJQK, gradient_BJQK, along_BJQ1 = (_at(x, i) for x in of_queries)
        key_BJSK, value_BJSK = (_at(x, u) for x in of_keys)
        scores_BJQS = _scores(query_BJQK, key_BJSK, i, u, size)
        weights_BJQS = jnp.exp(scores_BJQS - _at(log_sum_IBJQ1, i))
        push_BJQS = _dot("bjqk,bjsk->bjqs", gradient_BJQK, value_BJSK) - along_BJQ1
        push_BJQS = (weights_BJQS * push_BJQS * K**-0.5).astype(dtype)
        weights_BJQS = weights_BJQS.astype(dtype)
        more = (
            _dot("bjqs,bjsk->bjqk", push_BJQS, key_BJSK),
            _dot("bjqs,bjqk->bjsk", push_BJQS, query_BJQK),
            _dot("bjqs,bjqk->bjsk", weights_BJQS, gradient_BJQK),
        )
        summed = zip(carry, more, (i, u, u), strict=True)
        return tuple(_put(x, _at(x, at) + y, at) for x, y, at in summed), None

    start = [jnp.zeros(x.shape, jnp.float32) for x in (of_queries[0], *of_keys)]
    (query_IBJQK, key_UBJSK, value_UBJSK), _ = jax.lax.scan(
        step, tuple(start), _pairs(of_queries[0])
    )
    return (
        _join(query_IBJQK, T, size).astype(dtype),
        _join(key_UBJSK, T, size).astype(dtype),
        _join(value_UBJSK, T, size).astype(dtype),
    )


_attend.defvjp(_forward, _backward)


def _scores(
    query: Float[Array, "B J Q K"],
    key: Float[Array, "B J S K"],
    i: Int[Array, ""],
    u: Int[Array, ""],
    size: int,
) -> Float[Array, "B J Q S"]:
    """Returns scaled scores of one pair of blocks, -inf where the key is later."""
    query_at_Q = i * size + jnp.arange(query.shape[2]) % size
    key_at_S = u * size + jnp.arange(size)
    scores_BJQS = _dot("bjqk,bjsk->bjqs", query, key) * query.shape[-1] ** -0.5
    seen_QS = key_at_S[None] <= query_at_Q[:, None]
    return scores_BJQS + jnp.where(seen_QS, 0.0, -jnp.inf)[None, None]


def _pairs(query: Float[Array, "I B J Q K"]) -> tuple[Array, Array]:
    """Returns the block pairs (query, key) on and below the diagonal, row by row.

    Were they constants, so would be the masks, and a scan over layers would compute
    those of all pairs ahead, [B, H, T, T] of them. So they wait for the queries.
    """
    pairs = np.asarray(np.tril_indices(len(query)), np.int32)
    queries, keys, _ = jax.lax.optimization_barrier((*map(jnp.asarray, pairs), query))
    return queries, keys


def _cut(x: Float[Array, "B T H K"], J: int, size: int) -> Float[Array, "I B J Q K"]:
    """Cuts rows into blocks of `size`, the last one padded with zeros."""
    B, T, H, K = x.shape
    count = -(-T // size)
    x = jnp.pad(x, ((0, 0), (0, count * size - T), (0, 0), (0, 0)))
    x = x.reshape(B, count, size, J, H // J, K).transpose(1, 0, 3, 4, 2, 5)
    return x.reshape(count, B, J, H // J * size, K)


def _join(x: Float[Array, "I B J Q K"], T: int, size: int) -> Float[Array, "B T H K"]:
    """Undoes `_cut`."""
    count, B, J, Q, K = x.shape
    x = x.reshape(count, B, J, Q // size, size, K).transpose(1, 0, 4, 2, 3, 5)
    return x.reshape(B, count * size, Q // size * J, K)[:, :T]
