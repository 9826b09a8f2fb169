"""The key-value cache: prompts stored once for all their rows, and a part of each row.

Rows lie in a grid of P prompts by n rows. The keys and values of a prompt are held once
(`shared_*`, C slots), what a row has beyond its prompt is its own (S slots):

    row b belongs to prompt b // n and holds shared_lengths[b // n] + lengths[b] tokens

Slots are the last axis of keys and the last but one of values: so both products of
attention read them as they lie, which for one query a row is twice as fast on a CPU.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Shaped

from grpo_jax import choices, records
from grpo_jax.policy.presets import Architecture

# The axis of the slots.
KEY_SLOTS, VALUE_SLOTS = 3, 2


class KVCache(struct.PyTreeNode):
    """Keys and values of B = P n rows.

    Layers are a list, not an axis, so that writing one layer touches no other.

    Attributes:
      shared_keys: of the prompts, one array a layer.
      shared_values: the same.
      keys: of the rows beyond their prompts, one array a layer.
      values: the same.
      shared_lengths: shared slots filled for each prompt.
      lengths: own slots filled in each row. A row's next token goes to this slot; its
        position is that plus the shared length.
    """

    shared_keys: list[Float[records.Array, "P J K C"]]
    shared_values: list[Float[records.Array, "P J C K"]]
    keys: list[Float[records.Array, "B J K S"]]
    values: list[Float[records.Array, "B J S K"]]
    shared_lengths: Int[records.Array, " P"]
    lengths: Int[records.Array, " B"]

    @property
    def nbytes(self) -> int:
        """Memory of keys and values."""
        parts = self.shared_keys, self.shared_values, self.keys, self.values
        return sum(x.nbytes for x in jax.tree.leaves(parts))

    @property
    def num_slots(self) -> int:
        """Own tokens a row can hold."""
        return self.keys[0].shape[KEY_SLOTS]

    @property
    def num_shared_slots(self) -> int:
        """Prompt tokens that can be shared."""
        return self.shared_keys[0].shape[KEY_SLOTS]

    @property
    def rows_per_prompt(self) -> int:
        """Rows of the grid that share one prompt: n."""
        return self.keys[0].shape[0] // self.shared_keys[0].shape[0]


def empty(
    arch: Architecture,
    prompts: int,
    rows_per_prompt: int,
    shared_slots: int,
    slots: int,
    dtype: choices.Dtype,
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> KVCache:
    """Returns a cache that holds nothing.

    Args:
      arch: the shape of the model.
      prompts: P.
      rows_per_prompt: n.
      shared_slots: C.
      slots: S.
      dtype: of keys and values.
      sharding: by rows and heads; every device makes its own part only.
    """
    heads, K = arch.num_kv_heads, arch.head_dim

    def layers(*shape: int) -> list[Array]:
        return [
            jnp.zeros(shape, dtype.value, device=sharding)
            for _ in range(arch.num_layers)
        ]

    rows = prompts * rows_per_prompt
    return KVCache(
        shared_keys=layers(prompts, heads, K, shared_slots),
        shared_values=layers(prompts, heads, shared_slots, K),
        keys=layers(rows, heads, K, slots),
        values=layers(rows, heads, slots, K),
        shared_lengths=jnp.zeros(prompts, jnp.int32),
        lengths=jnp.zeros(rows, jnp.int32),
    )


def pick(x: Shaped[Array, "B *rest"], rows: Int[Array, "Z r"]) -> Array:
    """Returns [Z r, ...]: the picked rows of `x`.

    Rows are numbered within each of the Z equal parts of the first axis. Where a part
    is what one group of devices holds, nothing moves between devices.
    """
    Z, r = rows.shape
    parts = x.reshape(Z, x.shape[0] // Z, *x.shape[1:])
    picked = jax.vmap(lambda part, local: part[local])(parts, rows)
    return picked.reshape(Z * r, *x.shape[1:])


def place(
    x: Shaped[Array, "B *rest"], rows: Int[Array, "Z r"], new: Shaped[Array, "R *rest"]
) -> Shaped[Array, "B *rest"]:
    """Returns `x` with `new` at the given rows, numbered as in `pick`.

    A row number past the end of its part is dropped.
    """
    Z, r = rows.shape
    parts = x.reshape(Z, x.shape[0] // Z, *x.shape[1:])
    placed = jax.vmap(lambda part, local, y: part.at[local].set(y, mode="drop"))(
        parts, rows, new.reshape(Z, r, *x.shape[1:])
    )
    return placed.reshape(x.shape)


def resize(
    layer: Shaped[Array, "B J *rest"], slots: int, axis: int
) -> Shaped[Array, "B J *more"]:
    """Returns every row with room for `slots` tokens, cut or padded along `axis`."""
    kept = jax.lax.slice_in_dim(layer, 0, min(slots, layer.shape[axis]), axis=axis)
    padding = [(0, 0)] * layer.ndim
    padding[axis] = (0, slots - kept.shape[axis])
    return jnp.pad(kept, padding)


def write_keys(
    layer: Float[Array, "B J K S"],
    new: Float[Array, "B T J K"],
    slots: Int[Array, "B T"],
) -> Float[Array, "B J K S"]:
    """Puts token t of `new` into its slot of its row; slots past the end are dropped.

    Args:
      layer: keys of one layer.
      new: what to write.
      slots: where each token goes.
    """
    new_BJKT = new.transpose(0, 2, 3, 1).astype(layer.dtype)

    def one(row_JKS: Array, new_JKT: Array, slots_T: Array) -> Array:
        return row_JKS.at[:, :, slots_T].set(new_JKT, mode="drop")

    return jax.vmap(one)(layer, new_BJKT, slots)


def write_values(
    layer: Float[Array, "B J S K"],
    new: Float[Array, "B T J K"],
    slots: Int[Array, "B T"],
) -> Float[Array, "B J S K"]:
    """Does for values what `write_keys` does for keys."""
    new_BJTK = new.swapaxes(1, 2).astype(layer.dtype)

    def one(row_JSK: Array, new_JTK: Array, slots_T: Array) -> Array:
        return row_JSK.at[:, slots_T].set(new_JTK, mode="drop")

    return jax.vmap(one)(layer, new_BJTK, slots)
