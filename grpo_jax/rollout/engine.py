"""The three jitted steps of a rollout, on a grid of rows and its cache.

    prefill       fills the shared part of the cache with prompts
    catch_up      runs the model over tokens that were given to rows, not sampled
    decode_chunk  samples up to a fixed number of tokens for every live row

One invariant ties them together: **the last token of a row is pending**, in the row but
not yet in the cache. Prefill, guidance, splices and decoding are then the same thing:
show the model everything but the last token, then sample from where that leads.

What a row's text is, and which rows lie where, is the host's business (`session`): the
devices hold the cache and nothing else between two steps.

Noise depends on a row's key and the position it draws for, so a completion does not
depend on its neighbours, on when the loop looked up, or on the number of devices.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from grpo_jax import choices, records
from grpo_jax.policy import cache, sharding, transformer
from grpo_jax.policy.cache import KVCache
from grpo_jax.policy.presets import Architecture
from grpo_jax.rollout import stops
from grpo_jax.rollout.sampling import Sampling, sample


class Cursor(struct.PyTreeNode):
    """Where B rows of the grid stand, before a chunk.

    Attributes:
      pending: the last token of each row.
      live: whether the row is to be continued.
      remaining: tokens the row may still draw.
      keys: data of one key a row.
      stop_states: where the row stands in the search for stop strings.
    """

    pending: Int[records.Array, " B"]
    live: Bool[records.Array, " B"]
    remaining: Int[records.Array, " B"]
    keys: UInt32[records.Array, "B k"]
    stop_states: Int[records.Array, " B"]


class Drawn(struct.PyTreeNode):
    """What a chunk of Q steps drew for B rows, replicated on every device.

    Attributes:
      tokens: of each row the first `counts`, then nothing of meaning.
      log_probs: under the full distribution at the sampling temperature.
      log_mass: log of the probability the filters left to draw from.
      counts: tokens drawn.
      ended: whether the last one ends the sequence.
      stops: 1 + index of the stop string the last one completes; 0 is none.
      stop_states: where the row stands in the search for stop strings.
    """

    tokens: Int[records.Array, "B Q"]
    log_probs: Float[records.Array, "B Q"]
    log_mass: Float[records.Array, "B Q"]
    counts: Int[records.Array, " B"]
    ended: Bool[records.Array, " B"]
    stops: Int[records.Array, " B"]
    stop_states: Int[records.Array, " B"]


@functools.partial(jax.jit, static_argnames=("arch", "attention"), donate_argnames="kv")
def prefill(
    view: transformer.Params,
    kv: KVCache,
    tokens: Int[Array, "R T"],
    sources: Int[Array, "Z m"],
    prompts: Int[Array, "Z m"],
    *,
    arch: Architecture,
    attention: choices.Attention,
) -> KVCache:
    """Fills shared parts of the cache with R prompts; lengths are the host's.

    Args:
      view: weights for decoding.
      kv: the cache, donated.
      tokens: the prompts less their last tokens, right padded.
      sources: which of the prompts, numbered within each of Z equal parts,
      prompts: goes to which prompt of the grid, numbered likewise (`cache.pick`). A
        number past the end is dropped.
      arch: the shape of the model.
      attention: the kernel.
    """
    new_keys, new_values = transformer.prefill(view, arch, tokens, attention=attention)

    def fill(layer: Array, new: Array) -> Array:
        copies = cache.pick(new.astype(layer.dtype), sources)
        first = tuple(slice(size) for size in (None, *new.shape[1:]))
        return layer.at[first].set(cache.place(layer[first], prompts, copies))

    return kv.replace(
        shared_keys=jax.tree.map(fill, kv.shared_keys, new_keys),
        shared_values=jax.tree.map(fill, kv.shared_values, new_values),
    )


@functools.partial(jax.jit, static_argnames="arch", donate_argnames="kv")
def catch_up(
    view: transformer.Params,
    kv: KVCache,
    tokens: Int[Array, "R T"],
    counts: Int[Array, " R"],
    rows: Int[Array, "Z r"],
    *,
    arch: Architecture,
) -> KVCache:
    """Shows the model the given tokens of some rows.

    Args:
      view: weights for decoding.
      kv: the cache, donated; its lengths are those before.
      tokens: what the cache lacks of each row, less the row's last token.
      counts: how many of them are real.
      rows: which rows of the grid they belong to, numbered as in `cache.pick`; a number
        past the end of its part is dropped.
      arch: the shape of the model.
    """
    n = kv.rows_per_prompt
    own = functools.partial(cache.pick, rows=rows)
    shared = functools.partial(cache.pick, rows=rows // n)
    picked = KVCache(
        shared_keys=[shared(x) for x in kv.shared_keys],
        shared_values=[shared(x) for x in kv.shared_values],
        keys=[own(x) for x in kv.keys],
        values=[own(x) for x in kv.values],
        shared_lengths=shared(kv.shared_lengths),
        lengths=own(kv.lengths),
    )
    _, longer = transformer.extend(view, arch, picked, tokens, counts)

    back = functools.partial(jax.tree.map, lambda x, y: cache.place(x, rows, y))
    return kv.replace(
        keys=back(kv.keys, longer.keys), values=back(kv.values, longer.values)
    )


@functools.partial(
    jax.jit, static_argnames=("arch", "eos_ids", "steps"), donate_argnames="kv"
)
def decode_chunk(
    view: transformer.Params,
    kv: KVCache,
    cursor: Cursor,
    sampling: Sampling,
    table: stops.StopTable | None,
    *,
    arch: Architecture,
    eos_ids: tuple[int, ...],
    steps: int,
) -> tuple[KVCache, Drawn]:
    """Samples up to `steps` tokens for every live row.

    Args:
      view: weights for decoding.
      kv: the cache, donated, with room for `steps` more tokens in every live row; it
        holds all but the last token of each.
      cursor: where the rows stand.
      sampling: how tokens are drawn.
      table: the stop strings, at which a row pauses; None is none.
      arch: the shape of the model.
      eos_ids: tokens that end a row.
      steps: iterations, known at compile time so that no device waits for the host.
    """
    keys = jax.random.wrap_key_data(cursor.keys)
    first = jnp.repeat(kv.shared_lengths, kv.rows_per_prompt) + kv.lengths + 1
    ends = jnp.asarray(eos_ids, jnp.int32)

    def step(carry: tuple, index: Array) -> tuple[tuple, tuple]:
        kv, pending, live, ended, hits, states = carry
        hidden, kv = transformer.extend(
            view, arch, kv, pending[:, None], live.astype(jnp.int32)
        )
        noise = jax.vmap(jax.random.fold_in)(keys, first + index)
        tokens, *scores = sample(transformer.logits(view, hidden), noise, sampling)
        ended |= live & jnp.isin(tokens, ends)
        if table is not None:
            moved, found = stops.advance(table, states, tokens)
            states = jnp.where(live, moved, states)
            hits = jnp.where(live, found.astype(jnp.int32), hits)
        pending = jnp.where(live, tokens, pending)
        drawn = (tokens, *scores, live)
        live &= ~ended & (hits == 0) & (index + 1 < cursor.remaining)
        return (kv, pending, live, ended, hits, states), drawn

    B = cursor.pending.shape[0]
    never, none = jnp.zeros(B, bool), jnp.zeros(B, jnp.int32)
    # An argument that is returned as it came would be gathered beside the loop: two
    # collectives in no order, which devices may then enter in different ones.
    states = none if table is None else cursor.stop_states
    start = (kv, cursor.pending, cursor.live, never, none, states)
    (kv, _, _, ended, hits, states), drawn = jax.lax.scan(
        step, start, jnp.arange(steps)
    )
    tokens, log_probs, log_mass, was_live = (x.swapaxes(0, 1) for x in drawn)
    seen = Drawn(tokens, log_probs, log_mass, was_live.sum(1), ended, hits, states)
    return kv, sharding.constrain_replicated(seen)


@functools.partial(
    jax.jit, static_argnames=("of_prompts", "of_rows"), donate_argnames="kv"
)
def copy(
    kv: KVCache,
    sources: Int[Array, "Z m"],
    targets: Int[Array, "Z m"],
    *,
    of_prompts: bool = False,
    of_rows: bool = False,
) -> KVCache:
    """Copies prompts, or the own parts of rows, within the grid, which is donated.

    Both are numbered as in `cache.pick`; a target past the end is dropped.
    """

    def one(layers: list[Array]) -> list[Array]:
        return [cache.place(x, targets, cache.pick(x, sources)) for x in layers]

    if of_prompts:
        shared = {"shared_keys": one(kv.shared_keys)}
        kv = kv.replace(**shared, shared_values=one(kv.shared_values))
    if of_rows:
        kv = kv.replace(keys=one(kv.keys), values=one(kv.values))
    return kv


@functools.partial(jax.jit, static_argnames=("slots", "axis"))
def grow(
    layer: Float[Array, "B J *rest"], slots: int, axis: int
) -> Float[Array, "B J *more"]:
    """Returns one layer of keys or values with room for `slots` tokens a row."""
    return sharding.constrain_cache(cache.resize(layer, slots, axis))


@functools.partial(jax.jit, static_argnames=("slots", "axis"))
def move(
    layer: Float[Array, "B J *rest"], rows: Int[Array, "Z r"], slots: int, axis: int
) -> Float[Array, "R J *more"]:
    """Returns picked rows of one layer, with room for `slots` tokens."""
    picked = cache.pick(cache.resize(layer, slots, axis), rows)
    return sharding.constrain_cache(picked)


@jax.jit
def row_keys(
    key: Key[Array, ""],
    step: Int[Array, ""],
    prompt_ids: Int[Array, " B"],
    samples: Int[Array, " B"],
) -> UInt32[Array, "B k"]:
    """Returns the data of each row's key: what it is decides, not where it lies."""
    step_key = jax.random.fold_in(key, step)
    prompt_keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, prompt_ids)
    return jax.random.key_data(jax.vmap(jax.random.fold_in)(prompt_keys, samples))
