import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax import choices
from grpo_jax.config import OptimizerConfig
from grpo_jax.policy import transformer
from grpo_jax.trainer.optimizer import make_optimizer, make_schedule
from tests import helpers


def constant(config, updates=100):
    return make_optimizer(config, make_schedule(config, updates))


# The schedule of the Open-RS runs: a peak of 1e-6 after 50 of 500, then down to 10 %.
@pytest.mark.parametrize(
    ("update", "rate"),
    [
        (0, 0.0),
        (1, 2e-8),
        (25, 5e-7),
        (50, 1e-6),
        (100, 9.729e-7),
        (150, 8.947e-7),
        (200, 7.75e-7),
        (275, 5.5e-7),
        (400, 2.053e-7),
        (500, 1e-7),
        (501, 1e-7),
    ],
)
def test_cosine(update, rate):
    config = OptimizerConfig(
        learning_rate=1e-6,
        schedule=choices.Schedule.COSINE,
        warmup_steps=50,
        final_fraction=0.1,
    )
    got = float(make_schedule(config, 500)(update))
    assert got == pytest.approx(rate, abs=5e-11)


@pytest.mark.parametrize(
    ("kind", "warmup", "expected"),
    [
        ("constant", 0, [8.0, 8.0, 8.0, 8.0, 8.0]),
        ("constant", 4, [0.0, 4.0, 8.0, 8.0, 8.0]),
        ("linear", 0, [8.0, 6.8, 5.6, 4.4, 2.0]),
        ("linear", 4, [0.0, 4.0, 8.0, 6.0, 2.0]),
    ],
)
def test_constant_and_linear(kind, warmup, expected):
    config = OptimizerConfig(
        learning_rate=8.0,
        schedule=choices.Schedule(kind),
        warmup_steps=warmup,
        final_fraction=0.25,
    )
    schedule = make_schedule(config, 10)
    got = [float(schedule(update)) for update in (0, 2, 4, 6, 10)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak():
    config = OptimizerConfig(
        learning_rate=1.0, schedule=choices.Schedule.COSINE, warmup_steps=20
    )
    schedule = make_schedule(config, 10)
    np.testing.assert_allclose([float(schedule(i)) for i in (0, 5, 10)], [0, 0.25, 0.5])


def test_the_first_step_of_adam_by_hand():
    config = OptimizerConfig(learning_rate=0.1, epsilon=1.0, max_gradient_norm=0.0)
    optimizer = constant(config)
    params = {"final_norm": {"scale": jnp.array([1.0, 1.0])}}
    gradients = {"final_norm": {"scale": jnp.array([1.0, -3.0])}}
    changes, _ = optimizer.update(gradients, optimizer.init(params), params)
    # -0.1 g / (|g| + 1)
    np.testing.assert_allclose(changes["final_norm"]["scale"], [-0.05, 0.075], 1e-5)


@pytest.mark.parametrize("variant", helpers.VARIANTS)
def test_weight_decay_spares_norms_and_biases(variant):
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    optimizer = constant(config)
    params = jax.tree.map(
        lambda x: jnp.ones(x.shape),
        transformer.abstract_params(helpers.VARIANTS[variant]),
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    changes, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
    leaves = jax.tree_util.tree_leaves_with_path(optax.apply_updates(params, changes))
    seen = set()
    for path, leaf in leaves:
        name = path[-1].key
        seen.add(name)
        expected = {"kernel": 0.95, "table": 0.95, "scale": 1.0, "bias": 1.0}[name]
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, err_msg=str(path))
    biases = {"bias"} if variant == "qwen2" else set()
    assert seen == {"kernel", "table", "scale"} | biases


@pytest.mark.parametrize(
    ("limit", "gradient", "kept"),
    [
        (1.0, (3.0, 4.0), (0.6, 0.8)),
        (6.0, (3.0, 4.0), (3.0, 4.0)),
        (0.0, (30, 40), (30, 40)),
    ],
)
def test_clipping_is_by_the_norm_of_all_gradients(limit, gradient, kept):
    optimizer = constant(OptimizerConfig(max_gradient_norm=limit))
    params = {"a": {"kernel": jnp.zeros(1)}, "b": {"scale": jnp.zeros(1)}}
    gradients = {
        "a": {"kernel": jnp.array([gradient[0]], jnp.float32)},
        "b": {"scale": jnp.array([gradient[1]], jnp.float32)},
    }
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    mu = optax.tree_utils.tree_get(state, "mu")
    np.testing.assert_allclose(mu["a"]["kernel"][0], 0.1 * kept[0], rtol=1e-6)
    np.testing.assert_allclose(mu["b"]["scale"][0], 0.1 * kept[1], rtol=1e-6)
