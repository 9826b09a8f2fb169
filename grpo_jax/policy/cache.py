"""The key-value cache: prompts stored once for all their rows, and a part of each row.

Rows lie in a grid of P prompts by n rows. The keys and values of a prompt are held once
(`shared_*`, C slots), what a row has beyond its prompt is its own (S slots):

    row b belongs to prompt b // n and holds shared_lengths[b // n] + lengths[b] tokens
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Shaped

from grpo_jax import choices, records
from grpo_jax.policy.presets import Architecture


class KVCache(struct.PyTreeNode):
    """Keys and values of B = P n rows.

    Layers are a list, not an axis, so that writing one layer touches no other.

    Attributes:
      shared_keys: of the prompts, one array a layer.
      shared_values: laid out as `shared_keys`.
      keys: of the rows beyond their prompts, one array a layer.
      values: laid out as `keys`.
      shared_lengths: shared slots filled for each prompt.
      lengths: own slots filled in each row. A row's next token goes to this slot; its
        position is that plus the shared length.
    """

    shared_keys: list[Float[records.Array, "P J C K"]]
    shared_values: list[Float[records.Array, "P J C K"]]
    keys: list[Float[records.Array, "B J S K"]]
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
        return self.keys[0].shape[2]

    @property
    def num_shared_slots(self) -> int:
        """Prompt tokens that can be shared."""
        return self.shared_keys[0].shape[2]

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
      sharding: of [rows, heads, slots, K]; every device makes its own part only.
    """

    def layers(count: int, slots: int) -> list[Array]:
        shape = (count, arch.num_kv_heads, slots, arch.head_dim)
        return [
            jnp.zeros(shape, dtype.value, device=sharding)
            for _ in range(arch.num_layers)
        ]

    rows = prompts * rows_per_prompt
    return KVCache(
        shared_keys=layers(prompts, shared_slots),
        shared_values=layers(prompts, shared_slots),
        keys=layers(rows, slots),
        values=layers(rows, slots),
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


def take(
    layer: Float[Array, "B J S K"], rows: Int[Array, "Z r"], slots: int
) -> Float[Array, "R J s K"]:
    """Returns the picked rows with room for `slots` tokens, cut or padded."""
    return resize(pick(layer[:, :, :slots], rows), slots)


def resize(layer: Float[Array, "B J S K"], slots: int) -> Float[Array, "B J s K"]:
    """Returns every row with room for `slots` tokens, cut or padded."""
    kept = layer[:, :, :slots]
    return jnp.pad(kept, ((0, 0), (0, 0), (0, slots - kept.shape[2]), (0, 0)))


def write(
    layer: Float[Array, "B J S K"],
    new: Float[Array, "B T J K"],
    slots: Int[Array, "B T"],
) -> Float[Array, "B J S K"]:
    """Puts token t of `new` into its slot of its row; slots past the end are dropped.

    Args:
      layer: keys or values of one layer.
      new: what to write.
      slots: where each token goes.
    """
    new_BJTK = new.swapaxes(1, 2).astype(layer.dtype)

    def one(row_JSK: Array, new_JTK: Array, slots_T: Array) -> Array:
        return row_JSK.at[:, slots_T].set(new_JTK, mode="drop")

    return jax.vmap(one)(layer, new_BJTK, slots)
