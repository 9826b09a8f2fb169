"""Log-probabilities and entropies of tokens without ever holding all their logits.

The logits of a batch are its largest array by far: 32k positions of a vocabulary of
152k are 20 GB in float32. Here a scan walks over chunks of columns and keeps two
numbers a position; the backward pass walks again and recomputes each chunk. Only the
column axis is cut: rows stay whole, so that a batch sharded by rows needs no gather.
"""

# jax leaves parts of its own signatures untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

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
      chunk_columns: columns whose logits exist at one time, at least 1; the peak is
        B * chunk_columns * V numbers. The last chunk is padded if it must be.

    Returns:
      log_probs: at most 0.
      entropy: of the full distribution, in nats, from 0 to log V.

    Raises:
      ValueError: an impossible `temperature` or `chunk_columns`, or unequal dtypes.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: use a value above 0")
    if chunk_columns < 1:
        raise ValueError(f"chunk_columns is {chunk_columns}: use at least 1")
    if hidden.dtype != head.dtype:
        raise ValueError(
            f"hidden is {hidden.dtype} and head is {head.dtype}: cast one to the other"
        )
    columns = targets.shape[1]
    chunk = min(chunk_columns, columns)
    tail = (0, -columns % chunk)
    log_probs, entropy = _differentiable_scores(
        temperature,
        chunk,
        jnp.pad(hidden, ((0, 0), tail, (0, 0))),
        head,
        jnp.pad(targets, ((0, 0), tail)),
    )
    return log_probs[:, :columns], entropy[:, :columns]


def _scores(
    temperature: float,
    chunk: int,
    hidden: Float[Array, "B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B C"],
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Returns log-probs and entropies; `chunk` divides C."""
    return _forward(temperature, chunk, hidden, head, targets)[0]


def _forward(
    temperature: float,
    chunk: int,
    hidden: Float[Array, "B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B C"],
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array, Array, Array]]:
    """Returns `_scores`, and what `_backward` needs: two more numbers a position."""

    def score_chunk(carry: None, start: Int[Array, ""]):
        logits_BCV = _logits(_columns(hidden, start, chunk), head, temperature)
        largest_BC = jnp.max(logits_BCV, axis=-1)
        shifted_BCV = logits_BCV - largest_BC[..., None]
        exp_BCV = jnp.exp(shifted_BCV)
        total_BC = jnp.sum(exp_BCV, axis=-1)
        hit_BCV = _one_hot(_columns(targets, start, chunk), head.shape[0])
        log_total_BC = jnp.log(total_BC)
        log_probs_BC = jnp.sum(jnp.where(hit_BCV, shifted_BCV, 0), -1) - log_total_BC
        entropy_BC = log_total_BC - jnp.sum(exp_BCV * shifted_BCV, -1) / total_BC
        return carry, (log_probs_BC, entropy_BC, largest_BC + log_total_BC)

    starts = jnp.arange(0, targets.shape[1], chunk)
    _, chunks = lax.scan(score_chunk, None, starts)
    log_probs, entropy, log_normalizer = (
        jnp.moveaxis(part_NBC, 0, 1).reshape(targets.shape) for part_NBC in chunks
    )
    return (log_probs, entropy), (hidden, head, targets, entropy, log_normalizer)


def _backward(
    temperature: float,
    chunk: int,
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

    def accumulate(carry: tuple[Array, Array], start: Int[Array, ""]):
        d_hidden, d_head = carry
        hidden_BCD, targets_BC, entropy_BC, log_normalizer_BC, d_log_BC, d_ent_BC = (
            _columns(array, start, chunk)
            for array in (
                hidden,
                targets,
                entropy,
                log_normalizer,
                d_log_probs,
                d_entropy,
            )
        )
        logits_BCV = _logits(hidden_BCD, head, temperature)
        log_p_BCV = logits_BCV - log_normalizer_BC[..., None]
        p_BCV = jnp.exp(log_p_BCV)
        hit_BCV = _one_hot(targets_BC, head.shape[0])
        d_logits_BCV = d_log_BC[..., None] * (jnp.where(hit_BCV, 1.0, 0.0) - p_BCV)
        d_logits_BCV -= (
            d_ent_BC[..., None] * p_BCV * (log_p_BCV + entropy_BC[..., None])
        )
        d_logits_BCV = (d_logits_BCV / temperature).astype(hidden.dtype)
        d_hidden_BCD = jnp.einsum(
            "bcv,vd->bcd", d_logits_BCV, head, preferred_element_type=wide
        )
        d_head += jnp.einsum(
            "bcv,bcd->vd", d_logits_BCV, hidden_BCD, preferred_element_type=wide
        )
        d_hidden = lax.dynamic_update_slice_in_dim(
            d_hidden, d_hidden_BCD.astype(hidden.dtype), start, axis=1
        )
        return (d_hidden, d_head), None

    starts = jnp.arange(0, targets.shape[1], chunk)
    zeros = jnp.zeros_like(hidden), jnp.zeros(head.shape, wide)
    (d_hidden, d_head), _ = lax.scan(accumulate, zeros, starts)
    return d_hidden, d_head.astype(head.dtype), None


_differentiable_scores = jax.custom_vjp(_scores, nondiff_argnums=(0, 1))
_differentiable_scores.defvjp(_forward, _backward)


def _columns(array: Array, start: Int[Array, ""], chunk: int) -> Array:
    """Returns columns `start` to `start + chunk`."""
    return lax.dynamic_slice_in_dim(array, start, chunk, axis=1)


def _logits(
    hidden: Float[Array, "B C D"], head: Float[Array, "V D"], temperature: float
) -> Float[Array, "B C V"]:
    """Returns the logits at `temperature`, in float32 or wider."""
    wide = jnp.float64 if hidden.dtype == jnp.float64 else jnp.float32
    logits_BCV = jnp.einsum("bcd,vd->bcv", hidden, head, preferred_element_type=wide)
    return logits_BCV / temperature


def _one_hot(targets: Int[Array, "B C"], size: int) -> Bool[Array, "B C V"]:
    """Returns where the vocabulary meets its target.

    A comparison fuses into the sum that uses it, and where the vocabulary is sharded
    each shard makes its own part; indexing would gather the logits.
    """
    return targets[..., None] == jnp.arange(size, dtype=targets.dtype)[None, None]
