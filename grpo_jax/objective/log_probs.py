"""Log-probabilities and entropies of tokens without ever holding all their logits.

The logits of a batch are its largest array by far: 32k positions of a vocabulary of
152k are 20 GB in float32. Here a scan walks over chunks of columns and keeps two
numbers a position; the backward pass walks again and recomputes each chunk. Only the
column axis is cut: rows stay whole, so that a batch sharded by rows needs no gather.

Besides the letters of the package, M counts chunks, Y the positions of a chunk (its
rows times its columns) and X the groups of rows.
"""

# jax leaves parts of its own signatures untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


def token_log_probs(
    hidden: Float[Array, "B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B C"],
    *,
    temperature: float,
    chunk_columns: int,
    row_groups: int = 1,
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Computes the log-probability of each target and the entropy around it.

        z = hidden head^T / temperature
        log p(v) = z_v - log sum_w exp(z_w)
        entropy = -sum_v p(v) log p(v)

    The product runs in the dtype of its inputs and accumulates in float32; everything
    after it is float32 (float64 for float64 inputs). Both results carry gradients to
    `hidden` and `head`; the gradient of `head` is summed over chunks in float32.

    Args:
      hidden: final hidden states; column c is the state that predicts `targets[:, c]`.
      head: output embedding, in the dtype of `hidden`.
      targets: token ids in [0, V).
      temperature: sampling temperature, above 0.
      chunk_columns: most columns whose logits exist at one time, at least 1; the peak
        is B * chunk_columns * V numbers. Chunks are equally wide, and the columns that
        fill the last one are masked.
      row_groups: consecutive groups of rows, dividing B, each of which sums its own
        gradient of `head`; these are added after the last chunk. As many as there are
        devices that split the rows, so that they exchange the sum once and not once a
        chunk.

    Returns:
      log_probs: at most 0.
      entropy: of the full distribution, in nats, from 0 to log V.

    Raises:
      ValueError: an impossible `temperature`, `chunk_columns` or `row_groups`, or
        unequal dtypes.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: use a value above 0")
    if chunk_columns < 1:
        raise ValueError(f"chunk_columns is {chunk_columns}: use at least 1")
    rows, columns = targets.shape
    if row_groups < 1 or rows % row_groups:
        raise ValueError(
            f"row_groups is {row_groups}: it must divide the rows, which are {rows}"
        )
    if hidden.dtype != head.dtype:
        raise ValueError(
            f"hidden is {hidden.dtype} and head is {head.dtype}: cast one to the other"
        )
    chunks = -(-columns // min(chunk_columns, columns))
    tail = (0, -columns % chunks)
    log_probs, entropy = _differentiable_scores(
        _Plan(temperature, chunks, row_groups),
        jnp.pad(hidden, ((0, 0), tail, (0, 0))),
        head,
        jnp.pad(targets, ((0, 0), tail)),
    )
    return log_probs[:, :columns], entropy[:, :columns]


class _Plan(NamedTuple):
    """What is static: `chunks` divides C and `row_groups` divides B."""

    temperature: float
    chunks: int
    row_groups: int


def _scores(
    plan: _Plan,
    hidden: Float[Array, "B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B C"],
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Returns log-probs and entropies."""
    return _forward(plan, hidden, head, targets)[0]


def _forward(
    plan: _Plan,
    hidden: Float[Array, "B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B C"],
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array, Array, Array]]:
    """Returns `_scores`, and what `_backward` needs: two more numbers a position."""

    def score_chunk(carry: None, chunk: tuple[Array, Array]):
        hidden_YD, targets_Y = chunk
        logits_YV = _logits(hidden_YD, head, plan.temperature)
        largest_Y = jnp.max(logits_YV, axis=-1)
        shifted_YV = logits_YV - largest_Y[:, None]
        exp_YV = jnp.exp(shifted_YV)
        total_Y = jnp.sum(exp_YV, axis=-1)
        hit_YV = _one_hot(targets_Y, head.shape[0])
        log_total_Y = jnp.log(total_Y)
        log_probs_Y = jnp.sum(jnp.where(hit_YV, shifted_YV, 0), -1) - log_total_Y
        entropy_Y = log_total_Y - jnp.sum(exp_YV * shifted_YV, -1) / total_Y
        return carry, (log_probs_Y, entropy_Y, largest_Y + log_total_Y)

    rows = len(targets)
    chunks = _cut(hidden, plan.chunks), _cut(targets, plan.chunks)
    _, scores = lax.scan(score_chunk, None, chunks)
    log_probs, entropy, log_normalizer = (_join(part_MY, rows) for part_MY in scores)
    return (log_probs, entropy), (hidden, head, targets, entropy, log_normalizer)


def _backward(
    plan: _Plan,
    residuals: tuple[Array, Array, Array, Array, Array],
    cotangents: tuple[Float[Array, "B C"], Float[Array, "B C"]],
) -> tuple[Float[Array, "B C D"], Float[Array, "V D"], None]:
    """Pulls both cotangents back through one recomputation of each chunk's logits.

    d log p(t) / d z_v = [v = t] - p(v)
    d entropy / d z_v = -p(v) (log p(v) + entropy)
    """
    hidden, head, targets, entropy, log_normalizer = residuals
    d_log_probs, d_entropy = cotangents
    wide = log_normalizer.dtype
    V, D = head.shape

    def accumulate(d_head_XDV: Array, chunk: tuple[Array, ...]):
        hidden_YD, targets_Y, entropy_Y, log_normalizer_Y, d_log_Y, d_ent_Y = chunk
        logits_YV = _logits(hidden_YD, head, plan.temperature)
        log_p_YV = logits_YV - log_normalizer_Y[:, None]
        along_p_YV = (
            d_ent_Y[:, None] * log_p_YV + (d_log_Y + d_ent_Y * entropy_Y)[:, None]
        )
        at_target_YV = jnp.where(_one_hot(targets_Y, V), d_log_Y[:, None], 0)
        d_logits_YV = at_target_YV - jnp.exp(log_p_YV) * along_p_YV
        d_logits_YV = (d_logits_YV / plan.temperature).astype(hidden.dtype)
        d_hidden_YD = jnp.einsum(
            "yv,vd->yd", d_logits_YV, head, preferred_element_type=wide
        )
        # [D, V] and not [V, D]: a CPU transposes the left factor, which should be
        # the small one.
        d_head_XDV += jnp.einsum(
            "xyd,xyv->xdv",
            hidden_YD.reshape(plan.row_groups, -1, D),
            d_logits_YV.reshape(plan.row_groups, -1, V),
            preferred_element_type=wide,
        )
        return d_head_XDV, d_hidden_YD.astype(hidden.dtype)

    arrays = hidden, targets, entropy, log_normalizer, d_log_probs, d_entropy
    d_head_XDV, d_hidden_MYD = lax.scan(
        accumulate,
        jnp.zeros((plan.row_groups, D, V), wide),
        tuple(_cut(array, plan.chunks) for array in arrays),
    )
    d_head = d_head_XDV.sum(axis=0).T.astype(head.dtype)
    return _join(d_hidden_MYD, len(targets)), d_head, None


_differentiable_scores = jax.custom_vjp(_scores, nondiff_argnums=(0,))
_differentiable_scores.defvjp(_forward, _backward)


def _cut(array: Array, chunks: int) -> Array:
    """Cuts the columns of [B, C, ...] into chunks of positions: [M, Y, ...].

    Rows and columns become one axis here, and not after the product with the head:
    then the compiler can write over the logits.
    """
    B, _, *rest = array.shape
    cut = jnp.moveaxis(array.reshape(B, chunks, -1, *rest), 1, 0)
    return cut.reshape(chunks, -1, *rest)


def _join(array: Array, rows: int) -> Array:
    """Undoes `_cut`."""
    chunks, _, *rest = array.shape
    cut = array.reshape(chunks, rows, -1, *rest)
    return jnp.moveaxis(cut, 0, 1).reshape(rows, -1, *rest)


def _logits(
    hidden: Float[Array, "Y D"], head: Float[Array, "V D"], temperature: float
) -> Float[Array, "Y V"]:
    """Returns the logits at `temperature`, in float32 or wider."""
    wide = jnp.float64 if hidden.dtype == jnp.float64 else jnp.float32
    logits_YV = jnp.einsum("yd,vd->yv", hidden, head, preferred_element_type=wide)
    return logits_YV / temperature


def _one_hot(targets: Int[Array, " Y"], size: int) -> Bool[Array, "Y V"]:
    """Returns where the vocabulary meets its target.

    A comparison fuses into the sum that uses it, and where the vocabulary is sharded
    each shard makes its own part; indexing would gather the logits.
    """
    return targets[:, None] == jnp.arange(size, dtype=targets.dtype)[None]
