"""Attention of new tokens over the cache: the shared prompt and the row's own part.

Both parts meet in one softmax: one maximum and one sum over all scores, in float32.
Merging two finished softmaxes by their log-sum-exps would round those to the dtype of
the keys.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def attend(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B J K S"],
    value: Float[Array, "B J S K"],
    mask: Bool[Array, "B T S"],
    shared_key: Float[Array, "P J K C"],
    shared_value: Float[Array, "P J C K"],
    shared_mask: Bool[Array, "P C"],
) -> Float[Array, "B T H K"]:
    """softmax(query [shared_key key]^T / sqrt(K)) [shared_value value].

    The n = B / P rows of a prompt, and the R = H / J query heads of a key-value head,
    are laid side by side, so that a shared prompt is read once for all of them.

    Args:
      query: rotated queries.
      key: rotated keys of the rows' own parts.
      value: values of these.
      mask: True where query t may see own slot s; every query needs one True.
      shared_key: rotated keys of the prompts; C may be 0.
      shared_value: values of these.
      shared_mask: True where the prompt has a token.
    """
    B, T, H, K = query.shape
    P, J, C = shared_value.shape[:3]
    n, R = B // P, H // J
    query_PJnRTK = query.reshape(P, n, T, J, R, K).transpose(0, 3, 1, 4, 2, 5)
    own_query_BJQK = query_PJnRTK.swapaxes(1, 2).reshape(B, J, R * T, K)
    scores_BJQS = _scores(own_query_BJQK, key).reshape(B, J, R, T, -1)
    scores_BJQS = jnp.where(mask[:, None, None], scores_BJQS, -jnp.inf)
    scores_BJQS = scores_BJQS.reshape(B, J, R * T, -1)
    largest_BJQ1 = scores_BJQS.max(-1, keepdims=True)
    if C:
        shared_PJQC = _scores(query_PJnRTK.reshape(P, J, n * R * T, K), shared_key)
        shared_PJQC = jnp.where(shared_mask[:, None, None], shared_PJQC, -jnp.inf)
        shared_largest = _to_rows(shared_PJQC.max(-1, keepdims=True), n)
        largest_BJQ1 = jnp.maximum(largest_BJQ1, shared_largest)
    exp_BJQS = jnp.exp(scores_BJQS - largest_BJQ1)
    total_BJQ1 = exp_BJQS.sum(-1, keepdims=True)
    mixed_BJQK = _mix(exp_BJQS, value)
    if C:
        exp_PJQC = jnp.exp(shared_PJQC - _to_prompts(largest_BJQ1, n))
        total_BJQ1 += _to_rows(exp_PJQC.sum(-1, keepdims=True), n)
        mixed_BJQK += _to_rows(_mix(exp_PJQC, shared_value), n)
    mixed_BJRTK = (mixed_BJQK / total_BJQ1).reshape(B, J, R, T, K)
    mixed_BTHK = mixed_BJRTK.transpose(0, 3, 1, 2, 4).reshape(B, T, H, K)
    return mixed_BTHK.astype(query.dtype)


def _scores(query_XJQK: Array, key_XJKS: Array) -> Array:
    """Returns float32 query key^T / sqrt(K)."""
    scores_XJQS = jnp.einsum(
        "xjqk,xjks->xjqs", query_XJQK, key_XJKS, preferred_element_type=jnp.float32
    )
    return scores_XJQS * query_XJQK.shape[-1] ** -0.5


def _mix(weights_XJQS: Array, value_XJSK: Array) -> Array:
    """Returns the weighted sums of values in float32."""
    return jnp.einsum(
        "xjqs,xjsk->xjqk",
        weights_XJQS.astype(value_XJSK.dtype),
        value_XJSK,
        preferred_element_type=jnp.float32,
    )


def _to_rows(x_PJQX: Array, n: int) -> Array:
    """Returns [B, J, Q, X] of [P, J, n Q, X]."""
    P, J, Q, X = x_PJQX.shape
    return (
        x_PJQX.reshape(P, J, n, Q // n, X).swapaxes(1, 2).reshape(P * n, J, Q // n, X)
    )


def _to_prompts(x_BJQX: Array, n: int) -> Array:
    """Returns [P, J, n Q, X] of [B, J, Q, X]."""
    B, J, Q, X = x_BJQX.shape
    return (
        x_BJQX.reshape(B // n, n, J, Q, X).swapaxes(1, 2).reshape(B // n, J, n * Q, X)
    )
