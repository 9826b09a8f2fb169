"""The product with weights and both its gradients are what `lax.dot_general` gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from grpo_jax.policy.product import dot_general

# Shapes of activations and weights, and how many of their axes are contracted.
LAYERS = [
    ((2, 5, 6), (6, 9), 1),  # wider
    ((2, 5, 9), (9, 6), 1),  # narrower
    ((2, 5, 6), (6, 3, 4), 1),  # to heads
    ((2, 5, 3, 4), (3, 4, 6), 2),  # from heads
    ((2, 5, 3, 4), (3, 4, 16), 2),
    ((7, 4), (4, 4), 1),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("x_shape", "kernel_shape", "count"), LAYERS)
def test_values_and_gradients(x_shape, kernel_shape, count, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=x_shape), dtype)
    kernel = jnp.asarray(rng.normal(size=kernel_shape), dtype)
    last = tuple(range(len(x_shape) - count, len(x_shape)))
    axes = (last, tuple(range(count))), ((), ())

    def pulled(product):
        y, pull = jax.vjp(lambda x, kernel: product(x, kernel, axes), x, kernel)
        gradient = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)
        return y, *pull(gradient)

    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    for ours, theirs in zip(pulled(dot_general), pulled(lax.dot_general), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        wide = [np.asarray(each, np.float32) for each in (ours, theirs)]
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


def test_the_narrower_factor_is_transposed():
    """The contraction over positions has it on the left."""

    def left_width(width):
        x, kernel = jnp.ones((7, 4)), jnp.ones((4, width))

        def loss(kernel):
            return dot_general(x, kernel, (((1,), (0,)), ((), ()))).sum()

        products = [
            each
            for each in jax.make_jaxpr(jax.grad(loss))(kernel).eqns
            if each.primitive is lax.dot_general_p
        ]
        over_positions = products[-1]
        assert over_positions.params["dimension_numbers"][0] == ((0,), (0,))
        return over_positions.invars[0].aval.shape[1]

    assert left_width(16) == 4 and left_width(2) == 2
