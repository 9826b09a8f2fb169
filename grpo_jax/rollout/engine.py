"""The sampling loop: rows of tokens, and three jitted steps that advance them.

    append        adds given tokens to rows (a prompt, guidance, an observation)
    catch_up      runs the model over whatever the cache has not seen yet
    decode_chunk  samples up to a fixed number of tokens for every live row

One invariant ties rows and cache together: **the last token of a row is pending**, in
the row but not yet in the cache (`cache.lengths == rows.lengths - 1` before a chunk).
Prefill, guidance, splices and decoding are then the same operation.

Noise depends on a row's key and the position it draws for, so a completion does not
depend on its neighbours, on when the loop looked up, or on the number of devices.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt8

from grpo_jax.config import SamplingConfig
from grpo_jax.policy import transformer
from grpo_jax.policy.cache import KVCache
from grpo_jax.policy.presets import Architecture
from grpo_jax.records import Origin, PromptBatch
from grpo_jax.rollout import filtering


class Rows(struct.PyTreeNode):
    """B sequences being written.

    Attributes:
      tokens: token ids; what lies past `lengths` is meaningless.
      origins: `Origin` codes; PAD past `lengths`.
      behavior_log_probs: of sampled tokens, full distribution at the temperature.
      kept_log_mass: log of the probability that top-k, top-p and min-p left to draw
        from, where a token was sampled; 0 without filters.
      prompt_lengths: tokens of the prompt.
      lengths: tokens in all.
      limits: a row is done when it reaches this length.
      done: nothing more is sampled for this row.
      finished: done by an end-of-sequence token.
      keys: one key a row.
    """

    tokens: Int[Array, "B T"]
    origins: UInt8[Array, "B T"]
    behavior_log_probs: Float[Array, "B T"]
    kept_log_mass: Float[Array, "B T"]
    prompt_lengths: Int[Array, " B"]
    lengths: Int[Array, " B"]
    limits: Int[Array, " B"]
    done: Bool[Array, " B"]
    finished: Bool[Array, " B"]
    keys: Key[Array, " B"]


@functools.partial(jax.jit, static_argnames="columns")
def start(
    batch: PromptBatch, key: Key[Array, ""], step: Int[Array, ""], *, columns: int
) -> Rows:
    """Returns rows that hold their prompts and prefixes and nothing else.

    Args:
      batch: what the rows start from.
      key: the noise of this kind of rollout.
      step: the training step, so that a prompt met again is completed afresh.
      columns: T of the rows.
    """
    B, P = batch.tokens.shape
    offsets = jnp.arange(P)[None]
    origins = jnp.where(
        offsets < batch.prompt_lengths[:, None],
        jnp.uint8(Origin.PROMPT),
        batch.prefix_origins[:, None],
    )
    zeros = jnp.zeros((B, columns), jnp.float32)
    rows = Rows(
        tokens=zeros.astype(jnp.int32),
        origins=zeros.astype(jnp.uint8),
        behavior_log_probs=zeros,
        kept_log_mass=zeros,
        prompt_lengths=batch.prompt_lengths,
        lengths=jnp.zeros(B, jnp.int32),
        limits=jnp.minimum(batch.prompt_lengths + batch.budgets, columns),
        done=jnp.zeros(B, bool),
        finished=jnp.zeros(B, bool),
        keys=_row_keys(key, step, batch.prompt_ids, batch.samples),
    )
    return append(rows, batch.tokens, batch.lengths, origins)


def append(
    rows: Rows,
    tokens: Int[Array, "B E"],
    counts: Int[Array, " B"],
    origins: UInt8[Array, "B E"],
) -> Rows:
    """Adds the first `counts` of `tokens` to each row; the model has yet to see them.

    A row that thereby reaches its limit is done.
    """
    offsets = jnp.arange(tokens.shape[1])[None]
    columns = rows.lengths[:, None] + offsets
    columns = jnp.where(offsets < counts[:, None], columns, rows.tokens.shape[1])
    lengths = rows.lengths + counts
    return rows.replace(
        tokens=_put(rows.tokens, columns, tokens),
        origins=_put(rows.origins, columns, origins),
        lengths=lengths,
        done=rows.done | (lengths >= rows.limits),
    )


@functools.partial(jax.jit, static_argnames=("arch", "width"), donate_argnames="kv")
def catch_up(
    view: transformer.Params, kv: KVCache, rows: Rows, *, arch: Architecture, width: int
) -> KVCache:
    """Fills the cache with every token but each row's last.

    Args:
      view: weights for decoding.
      kv: the cache, donated.
      rows: the rows, none more than `width` tokens ahead of the cache.
      arch: the shape of the model.
      width: columns of the forward pass.
    """
    counts = rows.lengths - 1 - kv.lengths
    columns = kv.lengths[:, None] + jnp.arange(width)[None]
    # Past the end of the row the gather clamps; `counts` says those are not real.
    tokens = jnp.take_along_axis(rows.tokens, columns, axis=1, mode="clip")
    return transformer.extend(view, arch, kv, tokens, counts)[1]


@functools.partial(
    jax.jit,
    static_argnames=("arch", "sampling", "eos_ids", "steps"),
    donate_argnames=("kv", "rows"),
)
def decode_chunk(
    view: transformer.Params,
    kv: KVCache,
    rows: Rows,
    *,
    arch: Architecture,
    sampling: "Sampling",
    eos_ids: tuple[int, ...],
    steps: int,
) -> tuple[KVCache, Rows]:
    """Samples up to `steps` tokens for every row that is not done.

    Args:
      view: weights for decoding.
      kv: the cache, donated, with room for `steps` more tokens in every live row.
      rows: the rows, donated; `catch_up` has been called.
      arch: the shape of the model.
      sampling: how tokens are drawn.
      eos_ids: tokens that end a row.
      steps: iterations, known at compile time so that no device waits for the host.
    """

    def step(_: Array, carry: tuple[KVCache, Rows]) -> tuple[KVCache, Rows]:
        kv, rows = carry
        live = ~rows.done
        pending = jnp.take_along_axis(rows.tokens, rows.lengths[:, None] - 1, axis=1)
        hidden, kv = transformer.extend(view, arch, kv, pending, live.astype(jnp.int32))
        keys = jax.vmap(jax.random.fold_in)(rows.keys, rows.lengths)
        drawn = sample(transformer.logits(view, hidden), keys, sampling)
        return kv, _record(rows, live, *drawn, eos_ids)

    return jax.lax.fori_loop(0, steps, step, (kv, rows))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; hashable. See `SamplingConfig`."""

    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @classmethod
    def of(cls, config: SamplingConfig) -> "Sampling":
        """Returns the sampling a configuration asks for."""
        return cls(config.temperature, config.top_k, config.top_p, config.min_p)


def sample(
    logits: Float[Array, "B V"], keys: Key[Array, " B"], sampling: Sampling
) -> tuple[Int[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Draws one token a row, by the Gumbel trick.

    Args:
      logits: float32.
      keys: the noise of each row.
      sampling: temperature 0 takes the most likely token.

    Returns:
      The tokens; their log-probabilities under the full distribution at the sampling
      temperature (1 where it is 0); and the log of the mass the filters kept, which
      subtracted from the former gives the log-probability of what was drawn from.
    """
    log_probs_BV = jax.nn.log_softmax(logits / (sampling.temperature or 1.0))
    log_mass = jnp.zeros(logits.shape[0])
    if sampling.temperature == 0:
        tokens = jnp.argmax(log_probs_BV, axis=-1)
    else:
        allowed_BV = log_probs_BV
        if sampling.top_k or sampling.top_p < 1 or sampling.min_p:
            kept_BV = filtering.keep(
                log_probs_BV,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
            )
            allowed_BV = jnp.where(kept_BV, log_probs_BV, -jnp.inf)
            log_mass = jax.nn.logsumexp(allowed_BV, axis=-1)
        noise = functools.partial(jax.random.gumbel, shape=logits.shape[1:])
        tokens = jnp.argmax(allowed_BV + jax.vmap(noise)(keys), axis=-1)
    chosen = jnp.take_along_axis(log_probs_BV, tokens[:, None], axis=1)[:, 0]
    return tokens.astype(jnp.int32), chosen, log_mass


def _record(
    rows: Rows,
    live: Array,
    tokens: Array,
    log_probs: Array,
    log_mass: Array,
    eos_ids: tuple[int, ...],
) -> Rows:
    """Writes one sampled token to every live row and marks those it ends."""
    column = jnp.where(live, rows.lengths, rows.tokens.shape[1])
    origin = jnp.full(column.shape, Origin.SAMPLED, jnp.uint8)
    lengths = rows.lengths + live
    ended = live & jnp.isin(tokens, jnp.asarray(eos_ids, jnp.int32))
    return rows.replace(
        tokens=_put(rows.tokens, column, tokens),
        origins=_put(rows.origins, column, origin),
        behavior_log_probs=_put(rows.behavior_log_probs, column, log_probs),
        kept_log_mass=_put(rows.kept_log_mass, column, log_mass),
        lengths=lengths,
        finished=rows.finished | ended,
        done=rows.done | ended | (lengths >= rows.limits),
    )


def _put(
    table: Shaped[Array, "B T"], columns: Int[Array, "B *E"], new: Shaped[Array, "B *E"]
) -> Shaped[Array, "B T"]:
    """Writes `new` at `columns` of each row; columns past the end are dropped."""
    return jax.vmap(lambda row, at, x: row.at[at].set(x, mode="drop"))(
        table, columns, new
    )


def _row_keys(
    key: Key[Array, ""],
    step: Int[Array, ""],
    prompt_ids: Int[Array, " B"],
    samples: Int[Array, " B"],
) -> Key[Array, " B"]:
    """Returns the key of each row: a function of what it is, not of where it lies."""
    step_key = jax.random.fold_in(key, step)
    prompt_keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, prompt_ids)
    return jax.vmap(jax.random.fold_in)(prompt_keys, samples)
