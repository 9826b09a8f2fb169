"""Reductions over the entries a mask selects: 0, never NaN, where it selects none.

Entries that are left out may hold anything, NaN and infinity included; they change
neither a value nor a gradient.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def sum(
    values: Float[Array, "*S"],
    mask: Bool[Array, "*S"],
    *,
    axis: int | None = None,
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """Computes the sum of the selected entries.

    Args:
      values: any real numbers.
      mask: True where an entry counts.
      axis: the axis to reduce; None reduces all of them.
      keepdims: whether reduced axes stay, with size 1.

    Returns:
      The sum, in the dtype of `values`; 0 where nothing is selected.
    """
    return jnp.sum(jnp.where(mask, values, 0), axis=axis, keepdims=keepdims)


def mean(
    values: Float[Array, "*S"],
    mask: Bool[Array, "*S"],
    *,
    axis: int | None = None,
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """Computes the mean of the selected entries; arguments as in `sum`.

    Returns:
      The mean, in the dtype of `values`; 0 where nothing is selected.
    """
    count = jnp.sum(mask, axis=axis, keepdims=keepdims, dtype=values.dtype)
    return sum(values, mask, axis=axis, keepdims=keepdims) / jnp.maximum(count, 1)


def std(
    values: Float[Array, "*S"],
    mask: Bool[Array, "*S"],
    *,
    axis: int | None = None,
    keepdims: bool = False,
    ddof: int = 1,
) -> Float[Array, "..."]:
    """Computes the standard deviation of the selected entries.

        sqrt(sum (x - mean)^2 / (n - ddof))

    Args:
      values: any real numbers.
      mask: True where an entry counts.
      axis: the axis to reduce; None reduces all of them.
      keepdims: whether reduced axes stay, with size 1.
      ddof: 1 for the unbiased variance, 0 for that of the entries themselves.

    Returns:
      The deviation, in the dtype of `values`; 0 where n <= ddof. Its gradient is 0
      where all selected entries are equal, where the true one does not exist.
    """
    centre = mean(values, mask, axis=axis, keepdims=True)
    squares = sum(
        jnp.square(jnp.where(mask, values - centre, 0)),
        mask,
        axis=axis,
        keepdims=keepdims,
    )
    count = jnp.sum(mask, axis=axis, keepdims=keepdims, dtype=values.dtype)
    variance = squares / jnp.maximum(count - ddof, 1)
    # Both branches of a `where` are differentiated: keep zero away from the root.
    spread = variance > 0
    return jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), 0)


def max(
    values: Float[Array, "*S"],
    mask: Bool[Array, "*S"],
    *,
    axis: int | None = None,
    keepdims: bool = False,
) -> Float[Array, "..."]:
    """Computes the largest of the selected entries; arguments as in `sum`.

    Returns:
      The maximum, in the dtype of `values`; 0 where nothing is selected.
    """
    selected = jnp.where(mask, values, -jnp.inf)
    largest = jnp.max(selected, axis=axis, keepdims=keepdims)
    return jnp.where(jnp.any(mask, axis=axis, keepdims=keepdims), largest, 0)


def quantile(
    values: Float[Array, "*S"], mask: Bool[Array, "*S"], fraction: float
) -> Float[Array, ""]:
    """Computes the least selected entry that `fraction` of them do not exceed.

    Args:
      values: any real numbers.
      mask: True where an entry counts.
      fraction: in (0, 1].

    Returns:
      One of the selected entries; 0 where nothing is selected.
    """
    ordered = jnp.sort(jnp.where(mask, values, jnp.inf), axis=None)
    count = jnp.sum(mask, dtype=values.dtype)
    rank = jnp.ceil(fraction * count).astype(int) - 1
    return jnp.where(count > 0, ordered[jnp.maximum(rank, 0)], 0)
