import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import Aggregation, Divergence, Loss
from grpo_jax.objective.losses import policy_loss
from grpo_jax.objective.weights import loss_weights

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "trl_losses.npz"
DATA = dict(np.load(FIXTURE))
CASES = json.loads(str(DATA["cases"]))
OPTIONS = {"clip_low": 0.2, "clip_high": 0.2}


def weigh(mask, loss, aggregation=Aggregation.PUBLISHED):
    return loss_weights(
        jnp.asarray(mask, bool),
        loss=loss,
        aggregation=aggregation,
        max_completion_tokens=CASES["max_completion_length"],
    )


def trl_loss(case):
    """Returns what a recorded case calls its loss, in our words."""
    sequence = case["loss_type"] == "grpo" and case.get("level") == "sequence"
    return Loss.GSPO if sequence else Loss(case["loss_type"])


def run_case(case):
    """Returns the loss of a recorded case and its gradient."""
    log_probs, old, reference, advantages, mask = (
        jnp.asarray(DATA[f"{case['batch']}/{name}"], float)
        for name in (
            "log_probs",
            "old_log_probs",
            "reference_log_probs",
            "advantages",
            "mask",
        )
    )
    loss = trl_loss(case)
    value, gradient, _ = value_and_grad(
        (log_probs, old, reference, advantages),
        weigh(mask, loss),
        loss=loss,
        clip_low=case.get("eps_low", 0.2),
        clip_high=case.get("eps_high", 0.2),
        dual_clip=case.get("delta", 0.0),
        kl_coef=case["beta"],
        divergence=Divergence.K3,
    )
    return value, gradient


def identify(index):
    case = CASES["cases"][index]
    options = [f"{k}={v}" for k, v in case.items() if k not in ("loss", "loss_type")]
    return "-".join([case["loss_type"], *options])


@pytest.mark.parametrize("index", range(len(CASES["cases"])), ids=identify)
def test_matches_trl_in_float64(float64, index):
    case = CASES["cases"][index]
    loss, gradient = run_case(case)
    # TRL holds SAPO's temperatures in float32.
    relative = 1e-5 if case["loss_type"] == "sapo" else 1e-6
    np.testing.assert_allclose(loss, case["loss"], rtol=relative)
    np.testing.assert_allclose(gradient, DATA[f"grad/{index}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("index", range(len(CASES["cases"])), ids=identify)
def test_matches_trl_in_float32(index):
    case = CASES["cases"][index]
    loss, gradient = run_case(case)
    assert loss.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-4)
    np.testing.assert_allclose(gradient, DATA[f"grad/{index}"], rtol=0, atol=1e-6)


def random_batch(seed=0, shape=(8, 10)):
    rng = np.random.default_rng(seed)
    log_probs = -rng.exponential(size=shape)
    lengths = rng.integers(1, shape[1] + 1, shape[0])
    mask = np.arange(shape[1])[None] < lengths[:, None]
    arrays = (
        log_probs,
        log_probs - rng.normal(size=shape) * 0.3,
        log_probs - rng.normal(size=shape) * 0.3,
        rng.normal(size=shape[0]),
    )
    return [jnp.asarray(array, float) for array in arrays], mask


@functools.cache
def compiled(**options):
    return jax.jit(
        jax.value_and_grad(functools.partial(policy_loss, **options), has_aux=True)
    )


def value_and_grad(arrays, weights, **options):
    (value, diagnostics), gradient = compiled(**OPTIONS | options)(*arrays, weights)
    return value, gradient, diagnostics


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1, 1, -1),
        (1.5, 1, -1.2),
        (1.5, -1, 1.5),
        (0.5, 1, -0.5),
        (0.5, -1, 0.8),
        (1.1, 1, -1.1),
    ],
)
def test_clip_literals(ratio, advantage, expected):
    old = jnp.array([[-2.0]])
    arrays = old + np.log(ratio), old, None, jnp.array([float(advantage)])
    value, gradient, diagnostics = value_and_grad(
        arrays, jnp.ones((1, 1)), loss=Loss.GRPO
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    clipped = expected != -ratio * advantage
    assert diagnostics.clipped[0, 0] == clipped
    np.testing.assert_allclose(diagnostics.importance_ratio, ratio, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0 if clipped else expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(3, -1, 2), (1.9, -1, 1.9), (3, 1, -1.2), (0.5, -1, 0.8)],
)
def test_dual_clip_literals(ratio, advantage, expected):
    old = jnp.array([[-2.0]])
    arrays = old + np.log(ratio), old, None, jnp.array([float(advantage)])
    value, _, diagnostics = value_and_grad(
        arrays, jnp.ones((1, 1)), loss=Loss.GRPO, dual_clip=2.0
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert diagnostics.clipped[0, 0] == (expected != -ratio * advantage)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # Log-ratios 0.1, 0.3 and 0.2 average to 0.2, within the clip range.
        (Loss.GSPO, -np.exp(0.2)),
        (Loss.LUSPO, -3 * np.exp(0.2)),
        (Loss.CISPO, 2 * 1.05 * (1 + 1 + 1) / 3),
        (
            Loss.SAPO,
            -np.mean([4 / (1 + np.exp(1 - np.exp(x))) for x in (0.1, 0.3, 0.2)]),
        ),
    ],
)
def test_other_surrogates_literals(loss, expected):
    """CISPO caps every ratio at 1.05, and every log-probability is -2."""
    log_probs = jnp.full((1, 3), -2.0)
    old = log_probs - jnp.array([[0.1, 0.3, 0.2]])
    arrays = log_probs, old, None, jnp.ones(1)
    clip_high = 1.05 if loss is Loss.CISPO else 0.5
    value, _, _ = value_and_grad(
        arrays, weigh(np.ones((1, 3)), loss), loss=loss, clip_high=clip_high
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_gradient_at_the_bounds_is_that_of_the_ratio():
    """Ratio exactly 1 + clip_high or 1 - clip_low: not yet clipped."""
    log_probs = jnp.log(jnp.array([[2.0, 0.5]]))
    for advantage, column in [(1.0, 0), (-1.0, 1)]:
        arrays = log_probs, jnp.zeros((1, 2)), None, jnp.array([advantage])
        weights = jnp.zeros((1, 2)).at[0, column].set(1)
        ratio = float(jnp.exp(log_probs[0, column]))
        _, gradient, diagnostics = value_and_grad(
            arrays, weights, loss=Loss.GRPO, clip_low=1 - ratio, clip_high=ratio - 1
        )
        np.testing.assert_allclose(gradient[0, column], -ratio * advantage, rtol=1e-6)
        assert not diagnostics.clipped.any()


@pytest.mark.parametrize("loss", Loss)
def test_first_update_is_reinforce(float64, loss):
    """Ratio 1: d loss / d log p = -weight * advantage, also without old log-probs."""
    (log_probs, _, _, advantages), mask = random_batch()
    weights = weigh(mask, loss)
    expected = -weights * advantages[:, None]
    clip = {"clip_high": 5.0} if loss is Loss.CISPO else {}
    for old in (None, log_probs):
        arrays = log_probs, old, None, advantages
        _, gradient, diagnostics = value_and_grad(arrays, weights, loss=loss, **clip)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(diagnostics.importance_ratio, 1)
        assert not diagnostics.clipped.any()


@pytest.mark.parametrize("loss", Loss)
def test_slices_add_up_to_the_whole(float64, loss):
    arrays, mask = random_batch()
    weights = weigh(mask, loss)
    options = {"loss": loss, "kl_coef": 0.04, "dual_clip": 1.5}
    value, gradient, diagnostics = value_and_grad(arrays, weights, **options)
    parts = [
        value_and_grad([x[rows] for x in arrays], weights[rows], **options)
        for rows in (slice(0, 2), slice(2, 4), slice(4, 8))
    ]
    np.testing.assert_allclose(sum(part[0] for part in parts), value, rtol=1e-13)
    np.testing.assert_allclose(
        np.concatenate([part[1] for part in parts]), gradient, rtol=1e-13
    )
    jax.tree.map(
        lambda whole, *pieces: np.testing.assert_array_equal(
            np.concatenate(pieces), whole
        ),
        diagnostics,
        *(part[2] for part in parts),
    )


@pytest.mark.parametrize("loss", Loss)
def test_masked_tokens_change_nothing_and_have_no_gradient(loss):
    arrays, mask = random_batch()
    weights = weigh(mask, loss)
    clean = value_and_grad(arrays, weights, loss=loss, kl_coef=0.04)
    assert np.all(np.asarray(clean[1])[mask] != 0)
    *per_token, advantages = map(np.asarray, arrays)
    for garbage in (0.0, -1e30, -np.inf, np.nan):
        arrays = [np.where(mask, x, np.float32(garbage)) for x in per_token]
        dirty = value_and_grad([*arrays, advantages], weights, loss=loss, kl_coef=0.04)
        jax.tree.map(np.testing.assert_array_equal, dirty, clean)
        np.testing.assert_array_equal(np.asarray(dirty[1])[~mask], 0)


@pytest.mark.parametrize("loss", Loss)
def test_padding_columns_change_nothing(float64, loss):
    arrays, mask = random_batch()
    options = {"loss": loss, "kl_coef": 0.04}
    value, gradient, _ = value_and_grad(arrays, weigh(mask, loss), **options)
    pad = ((0, 0), (2, 3))
    padded = [jnp.pad(x, pad) for x in arrays[:3]] + [arrays[3]]
    weights = weigh(np.pad(mask, pad), loss)
    padded_value, padded_gradient, _ = value_and_grad(padded, weights, **options)
    np.testing.assert_allclose(padded_value, value, rtol=1e-13)
    np.testing.assert_allclose(padded_gradient, jnp.pad(gradient, pad), rtol=1e-13)


@pytest.mark.parametrize("loss", Loss)
def test_nothing_in_the_loss_gives_zero(loss):
    arrays, mask = random_batch()
    value, gradient, _ = value_and_grad(
        arrays, weigh(np.zeros_like(mask), loss), loss=loss, kl_coef=0.04
    )
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("loss", Loss)
def test_zero_advantage_gives_zero_gradient_and_counts_as_unclipped(loss):
    arrays, mask = random_batch()
    arrays[3] = jnp.zeros_like(arrays[3])
    value, gradient, diagnostics = value_and_grad(
        arrays, weigh(mask, loss), loss=loss, clip_high=2.0
    )
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)
    assert not diagnostics.clipped.any()


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("loss", Loss)
def test_extreme_log_ratios_stay_finite(loss, sign):
    old = jnp.full((1, 2), -1e3 if sign > 0 else -1e-3)
    log_probs = jnp.full((1, 2), -1e-3 if sign > 0 else -1e3)
    for advantage in (-1.0, 1.0):
        value, gradient, _ = value_and_grad(
            (log_probs, old, old, jnp.array([advantage])),
            jnp.ones((1, 2)),
            loss=loss,
            kl_coef=0.04,
        )
        assert jnp.isfinite(value) and jnp.all(jnp.isfinite(gradient))


def test_a_nan_in_the_loss_is_not_hidden():
    arrays, mask = random_batch()
    arrays[0] = arrays[0].at[0, 0].set(jnp.nan)
    value, _, _ = value_and_grad(arrays, weigh(mask, Loss.GRPO), loss=Loss.GRPO)
    assert jnp.isnan(value)


def test_reference_without_a_coefficient_is_measured_but_not_trained():
    arrays, mask = random_batch()
    weights = weigh(mask, Loss.GRPO)
    value, gradient, diagnostics = value_and_grad(arrays, weights, loss=Loss.GRPO)
    arrays[2] = None
    expected = value_and_grad(arrays, weights, loss=Loss.GRPO)
    np.testing.assert_array_equal(value, expected[0])
    np.testing.assert_array_equal(gradient, expected[1])
    assert jnp.all(diagnostics.kl[mask] > 0)
    np.testing.assert_array_equal(diagnostics.kl[~mask], 0)
    np.testing.assert_array_equal(expected[2].kl, 0)


def test_coefficient_without_a_reference_is_refused():
    arrays, mask = random_batch()
    arrays[2] = None
    with pytest.raises(ValueError, match=r"kl_coef is 0.04 but reference_log_probs"):
        value_and_grad(arrays, weigh(mask, Loss.GRPO), loss=Loss.GRPO, kl_coef=0.04)


def test_second_call_does_not_recompile():
    traces = []

    @jax.jit
    def compute(arrays, weights):
        traces.append(1)
        return value_and_grad(arrays, weights, loss=Loss.GSPO, kl_coef=0.1)

    for seed in range(2):
        arrays, mask = random_batch(seed)
        compute(arrays, weigh(mask, Loss.GSPO))
    assert len(traces) == 1
