"""The product of activations and weights, with its gradient in a CPU's favourite order.

The gradient of the weights sums over all positions, so a CPU transposes one of its two
factors. Automatic differentiation puts the incoming gradient there; where that is the
wider factor, it is made twice, the second time column by column. Here it is always the
narrower one.
"""

import math
from typing import Any

import jax
from jax import lax
from jaxtyping import Array

# (contracted axes of both factors, batch axes of both), as `lax.dot_general` takes it.
Axes = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[()], tuple[()]]]


def dot_general(
    x: Array, kernel: Array, axes: Axes, precision: Any = None, **options: Any
) -> Array:
    """Returns what `lax.dot_general` returns, for the dense layers of Flax.

    Args:
      x: activations; their last axes are contracted
      kernel: with the first of these, in the same order.
      axes: which ones; there are no batch axes.
      precision: as in `lax.dot_general`; the gradients use it too.
      **options: further ones that a dense layer may pass.
    """
    return _product(x, kernel, axes, (precision, tuple(options.items())))


def _dot(x: Array, y: Array, axes: Any, options: tuple[Any, Any]) -> Array:
    precision, others = options
    return lax.dot_general(x, y, axes, precision=precision, **dict(others))


def _forward(
    x: Array, kernel: Array, axes: Axes, options: tuple[Any, Any]
) -> tuple[Array, tuple[Array, Array]]:
    return _dot(x, kernel, axes, options), (x, kernel)


def _backward(
    axes: Axes, options: tuple[Any, Any], factors: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = factors
    inputs = len(axes[0][0])
    positions = tuple(range(x.ndim - inputs))
    outputs = tuple(range(len(positions), gradient.ndim))
    features = tuple(range(inputs, kernel.ndim))
    d_x = _dot(gradient, kernel, ((outputs, features), ((), ())), options)
    summed = (positions, positions), ((), ())
    if kernel.size >= math.prod(kernel.shape[:inputs]) ** 2:  # at least as many outputs
        d_kernel = _dot(x, gradient, summed, options)
    else:
        d_kernel = _dot(gradient, x, summed, options)
        order = (*range(len(features), kernel.ndim), *range(len(features)))
        d_kernel = d_kernel.transpose(order)
    return d_x.astype(x.dtype), d_kernel.astype(kernel.dtype)


_product = jax.custom_vjp(_dot, nondiff_argnums=(2, 3))
_product.defvjp(_forward, _backward)
