"""The decoder as pure functions of a plain tree of weights.

    init(arch, key)                        -> params, layers stacked on a leading axis
    forward(params, arch, tokens)          -> hidden states, for training
    rollout_view(params, arch, dtype)      -> the same weights, laid out for decoding
    extend(view, arch, cache, tokens, ...) -> logits and cache, for rollouts

`forward` scans over the stacked layers, so that compile time does not grow with depth;
`extend` unrolls them, so that decoding slices no weights inside its loop.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from grpo_jax import choices
from grpo_jax.policy import attention, cache, cached_attention, layers, sharding
from grpo_jax.policy import attention_kernels as kernels
from grpo_jax.policy.attention import Rotation
from grpo_jax.policy.cache import KVCache
from grpo_jax.policy.presets import Architecture
from grpo_jax.policy.remat import recompute

Params = dict[str, Any]


def init(arch: Architecture, key: Key[Array, ""]) -> Params:
    """Returns random float32 weights: lecun-normal matrices, 0.02 for embeddings."""
    embedding_key, head_key, layers_key = jax.random.split(key, 3)
    x = jnp.zeros((1, 1, arch.model_dim))
    rotation = Rotation.at(jnp.zeros((1, 1), jnp.int32), arch)

    def init_layer(layer_key: Array) -> Params:
        block: Any = layers.Block(arch)
        return block.init(layer_key, x, rotation, attention.causal)["params"]

    def table(table_key: Array) -> Array:
        return 0.02 * jax.random.normal(table_key, (arch.vocab_size, arch.model_dim))

    params = {
        "embedding": {"table": table(embedding_key)},
        "layers": jax.vmap(init_layer)(jax.random.split(layers_key, arch.num_layers)),
        "final_norm": {"scale": jnp.ones(arch.model_dim)},
    }
    if not arch.tied_head:
        params["head"] = {"kernel": table(head_key)}
    return params


def abstract_params(arch: Architecture) -> Params:
    """Returns the shapes and dtypes of `init`, computing nothing."""
    return jax.eval_shape(functools.partial(init, arch), jax.random.key(0))


def cast(params: Params, dtype: choices.Dtype) -> Params:
    """Returns the weights in the compute dtype."""
    return jax.tree.map(lambda x: x.astype(dtype.value), params)


def head_table(params: Params) -> Float[Array, "V D"]:
    """Returns the output projection: the head, or the embedding where they are tied."""
    return (
        params["head"]["kernel"] if "head" in params else params["embedding"]["table"]
    )


def logits(
    params: Params, hidden: Float[Array, "*batch D"]
) -> Float[Array, "*batch V"]:
    """Returns float32 next-token logits of final hidden states."""
    return jnp.einsum(
        "...d,vd->...v",
        hidden,
        head_table(params),
        preferred_element_type=jnp.float32,
    )


def forward(
    params: Params,
    arch: Architecture,
    tokens: Int[Array, "B T"],
    *,
    remat: choices.Remat = choices.Remat.NONE,
    attention: choices.Attention = choices.Attention.AUTO,
) -> Float[Array, "B T D"]:
    """Returns final hidden states of right-padded rows; position t is column t.

    Args:
      params: weights in the compute dtype.
      arch: the shape of the model.
      tokens: token ids. What padding holds changes nothing before it.
      remat: what the backward pass recomputes.
      attention: the kernel.
    """
    rotation = Rotation.at(jnp.arange(tokens.shape[1])[None], arch)

    def attend(query: Array, key: Array, value: Array) -> Array:
        return kernels.causal(query, key, value, attention)

    def block(x_BTD: Array, layer: Params) -> tuple[Array, None]:
        x_BTD = _block(arch, layer, x_BTD, rotation, attend)
        return sharding.constrain_rows(x_BTD), None

    block = recompute(block, remat)
    x_BTD, _ = jax.lax.scan(block, _embed(params, tokens), params["layers"])
    return _final_norm(params, arch, x_BTD)


def rollout_view(params: Params, arch: Architecture, dtype: choices.Dtype) -> Params:
    """Returns the weights cast, and with the layers as a list, for `extend`."""
    view = cast(params, dtype)
    stacked = view["layers"]
    view["layers"] = [
        jax.tree.map(lambda x, l=l: x[l], stacked) for l in range(arch.num_layers)
    ]
    return view


def prefill(
    view: Params,
    arch: Architecture,
    tokens: Int[Array, "R T"],
    *,
    attention: choices.Attention = choices.Attention.AUTO,
) -> tuple[list[Float[Array, "R J K T"]], list[Float[Array, "R J T K"]]]:
    """Returns the keys and values of right-padded prompts, layer by layer.

    Args:
      view: weights as `rollout_view` lays them out.
      arch: the shape of the model.
      tokens: token ids. What padding holds changes nothing before it.
      attention: the kernel.
    """
    rotation = Rotation.at(jnp.arange(tokens.shape[1])[None], arch)
    keys, values = [], []

    def attend(query: Array, key: Array, value: Array) -> Array:
        keys.append(key.transpose(0, 2, 3, 1))
        values.append(value.swapaxes(1, 2))
        return kernels.causal(query, key, value, attention)

    x = _embed(view, tokens)
    for layer in view["layers"]:
        x = _block(arch, layer, x, rotation, attend)
    return keys, values


def extend(
    view: Params,
    arch: Architecture,
    kv: KVCache,
    tokens: Int[Array, "B T"],
    counts: Int[Array, " B"],
) -> tuple[Float[Array, "B D"], KVCache]:
    """Appends tokens to the rows of a cache: decoding (T = 1) and splices alike.

    Args:
      view: weights as `rollout_view` lays them out.
      arch: the shape of the model.
      kv: the cache; rows must have room for their `counts` tokens.
      tokens: token ids, the first `counts` of each row are real.
      counts: tokens to append to each row, 0 leaves it alone.

    Returns:
      The final hidden state at each row's last real token (meaningless where `counts`
      is 0), and the cache.
    """
    offsets = jnp.arange(tokens.shape[1])[None]
    own = kv.lengths[:, None] + offsets
    # Padding is sent past the last slot, where the write drops it.
    slots = jnp.where(offsets < counts[:, None], own, kv.num_slots)
    mask = jnp.arange(kv.num_slots)[None, None] <= own[:, :, None]
    shared_mask = jnp.arange(kv.num_shared_slots)[None] < kv.shared_lengths[:, None]
    before = jnp.repeat(kv.shared_lengths, kv.rows_per_prompt)[:, None]
    rotation = Rotation.at(before + own, arch)

    keys, values = list(kv.keys), list(kv.values)
    x = _embed(view, tokens)
    for index, layer in enumerate(view["layers"]):

        def attend(query: Array, key: Array, value: Array, l: int = index) -> Array:
            keys[l] = cache.write_keys(keys[l], key, slots)
            values[l] = cache.write_values(values[l], value, slots)
            shared = kv.shared_keys[l], kv.shared_values[l], shared_mask
            return cached_attention.attend(query, keys[l], values[l], mask, *shared)

        x = _block(arch, layer, x, rotation, attend)
    last = jnp.maximum(counts - 1, 0)
    x_BD = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
    hidden = _final_norm(view, arch, x_BD)
    return hidden, kv.replace(keys=keys, values=values, lengths=kv.lengths + counts)


def _embed(params: Params, tokens: Array) -> Array:
    return sharding.constrain_rows(params["embedding"]["table"][tokens])


# What `apply` returns is untyped in Linen: these two say what it is.


def _block(
    arch: Architecture,
    layer: Params,
    x: Array,
    rotation: Rotation,
    attend: layers.Attend,
) -> Array:
    block: Any = layers.Block(arch)
    return block.apply({"params": layer}, x, rotation, attend)


def _final_norm(params: Params, arch: Architecture, x: Array) -> Array:
    norm: Any = layers.RMSNorm(arch.norm_epsilon)
    return norm.apply({"params": params["final_norm"]}, x)
