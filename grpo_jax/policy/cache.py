"""The key-value cache: one pair of arrays a layer, a length a row."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from grpo_jax import choices, records
from grpo_jax.policy.presets import Architecture


class KVCache(struct.PyTreeNode):
    """Keys and values of B rows.

    Layers are a list, not an axis, so that writing one layer touches no other.

    Attributes:
      keys: one array a layer.
      values: one array a layer.
      lengths: slots filled in each row; the next token goes to this slot, which is
        also its position.
    """

    keys: list[Float[records.Array, "B J S K"]]
    values: list[Float[records.Array, "B J S K"]]
    lengths: Int[records.Array, " B"]

    @property
    def num_slots(self) -> int:
        """Tokens a row can hold."""
        return self.keys[0].shape[2]


def empty(
    arch: Architecture,
    rows: int,
    slots: int,
    dtype: choices.Dtype,
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> KVCache:
    """Returns a cache of `rows` rows and `slots` slots that holds nothing.

    With a sharding of [B, J, S, K] every device makes its own part only.
    """
    shape = (rows, arch.num_kv_heads, slots, arch.head_dim)

    def layers() -> list[Array]:
        return [
            jnp.zeros(shape, dtype.value, device=sharding)
            for _ in range(arch.num_layers)
        ]

    return KVCache(layers(), layers(), jnp.zeros(rows, jnp.int32))


def grow(cache: KVCache, slots: int) -> KVCache:
    """Returns the cache with room for `slots` tokens a row, contents unchanged."""
    extra = slots - cache.num_slots
    padding = ((0, 0), (0, 0), (0, extra), (0, 0))
    keys, values = jax.tree.map(
        lambda x: jnp.pad(x, padding), (cache.keys, cache.values)
    )
    return cache.replace(keys=keys, values=values)


def write(
    layer: Float[Array, "B J S K"],
    new: Float[Array, "R T J K"],
    slots: Int[Array, "R T"],
    rows: Int[Array, " R"] | None,
) -> Float[Array, "B J S K"]:
    """Puts token t of `new` into its slot of its row; slots past the end are dropped.

    Args:
      layer: keys or values of one layer.
      new: what to write, for all rows or for `rows`.
      slots: where each token goes.
      rows: which rows of `layer`; None is every row in order, which needs no gather
        and stays within its shard when rows are sharded.
    """
    new_RJTK = new.swapaxes(1, 2).astype(layer.dtype)

    def one(row_JSK: Array, new_JTK: Array, slots_T: Array) -> Array:
        return row_JSK.at[:, slots_T].set(new_JTK, mode="drop")

    if rows is None:
        return jax.vmap(one)(layer, new_RJTK, slots)
    return layer.at[rows].set(jax.vmap(one)(layer[rows], new_RJTK, slots))
