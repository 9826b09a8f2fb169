"""Tokens that the policy did not write: out of the loss, in it, or imitated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import Advantage, Aggregation, GuidanceLoss, Loss
from grpo_jax.objective.advantages import group_advantages
from grpo_jax.objective.losses import policy_loss
from grpo_jax.objective.weights import guidance_origins, loss_mask, loss_weights
from grpo_jax.records import Origin

PAD, SAMPLED, GUIDANCE = (
    int(origin) for origin in (Origin.PAD, Origin.SAMPLED, Origin.GUIDANCE)
)
AGGREGATIONS = [x for x in Aggregation if x is not Aggregation.PUBLISHED]
# Row 1 is 3 guidance and 2 generated tokens, row 2 is 4 generated ones.
ORIGINS = np.array([[GUIDANCE] * 3 + [SAMPLED] * 2, [SAMPLED] * 4 + [PAD]], np.uint8)


def run(
    arrays,
    origins,
    treatment=GuidanceLoss.OFF_POLICY,
    *,
    loss=Loss.GRPO,
    aggregation=Aggregation.PUBLISHED,
    **options,
):
    """Returns loss, gradient and diagnostics with guidance treated as chosen."""
    trained, foreign = guidance_origins(treatment)
    origins = jnp.asarray(origins)
    weights = loss_weights(
        loss_mask(origins, trained=trained),
        loss=loss,
        aggregation=aggregation,
        max_completion_tokens=10,
    )
    off_policy = loss_mask(origins, trained=foreign) if foreign else None

    @jax.jit
    def compute(arrays, weights, off_policy):
        def value(log_probs):
            return policy_loss(
                log_probs,
                *arrays[1:],
                weights,
                loss=loss,
                clip_low=0.2,
                clip_high=0.2,
                off_policy=off_policy,
                **options,
            )

        return jax.value_and_grad(value, has_aux=True)(arrays[0])

    (value, diagnostics), gradient = compute(arrays, weights, off_policy)
    return value, gradient, diagnostics, weights


def random_batch(seed=0, shape=(6, 9)):
    rng = np.random.default_rng(seed)
    log_probs = -rng.exponential(size=shape)
    arrays = [
        log_probs,
        log_probs - rng.normal(size=shape) * 0.3,
        log_probs - rng.normal(size=shape) * 0.3,
        rng.normal(size=shape[0]),
    ]
    columns = np.arange(shape[1])[None]
    lengths = rng.integers(4, shape[1] + 1, shape[0])[:, None]
    prefixes = np.array([3, 0] * (shape[0] // 2))[:, None]
    origins = np.where(columns < prefixes, GUIDANCE, SAMPLED)
    origins = np.where(columns < lengths, origins, PAD).astype(np.uint8)
    return [jnp.asarray(array, float) for array in arrays], origins


@pytest.mark.parametrize(
    ("treatment", "aggregation", "first", "second"),
    [
        ("INCLUDE", "SEQUENCE_MEAN", [-0.07070] * 5, 0.08838),
        ("INCLUDE", "TOKEN_MEAN", [-0.07856] * 5, 0.07856),
        ("MASK", "SEQUENCE_MEAN", [0] * 3 + [-0.17675] * 2, 0.08838),
        ("MASK", "TOKEN_MEAN", [0] * 3 + [-0.11783] * 2, 0.11783),
    ],
)
def test_guidance_in_or_out_of_the_loss_literals(treatment, aggregation, first, second):
    log_probs = jnp.asarray(-np.random.default_rng(0).exponential(size=(2, 5)), float)
    advantages = group_advantages(
        jnp.array([1.0, 0.0]), group_size=2, kind=Advantage.GROUP_STD, epsilon=1e-4
    )
    _, gradient, diagnostics, _ = run(
        [log_probs, None, log_probs - 1, advantages],
        ORIGINS,
        GuidanceLoss[treatment],
        aggregation=Aggregation[aggregation],
    )
    expected = [first, [second] * 4 + [0]]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=6e-6)
    measured = [[each != 0 for each in first], [True] * 4 + [False]]
    np.testing.assert_array_equal(diagnostics.kl > 0, measured)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("loss", Loss)
def test_a_row_of_guidance_alone_adds_nothing(loss, aggregation):
    arrays, origins = random_batch()
    origins[2] = GUIDANCE
    options = {"loss": loss, "aggregation": aggregation, "kl_coef": 0.1}
    with jax.debug_infs(True), jax.debug_nans(True):
        value, gradient, _, _ = run(arrays, origins, GuidanceLoss.MASK, **options)
    np.testing.assert_array_equal(gradient[2], 0)
    left = [np.delete(array, 2, axis=0) for array in arrays]
    origins = np.delete(origins, 2, axis=0)
    expected = run(left, origins, GuidanceLoss.MASK, **options)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("probability", "gamma", "expected"),
    [(0.1, 0.1, 0.25), (0.3, 0.1, 0.1875), (1.0, 0.25, 0.16)],
)
def test_off_policy_literals(probability, gamma, expected):
    """A = 2, gradient -A p gamma / (p + gamma)^2, whatever the others say of it."""
    log_probs = jnp.log(jnp.array([[probability]]))
    arrays = [log_probs, log_probs - 9, log_probs + 3, jnp.array([2.0])]
    origins = np.array([[GUIDANCE]], np.uint8)
    value, gradient, diagnostics, _ = run(
        arrays, origins, kl_coef=0.5, shaping_gamma=gamma
    )
    share = probability / (probability + gamma)
    np.testing.assert_allclose(value, -2 * share, rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-2 * expected]], rtol=1e-6)
    assert (diagnostics.importance_ratio, diagnostics.kl) == (1, 0)
    assert not diagnostics.clipped.any()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("loss", Loss)
def test_off_policy_tokens_follow_the_formula_and_others_do_not_see_them(
    float64, loss, aggregation
):
    arrays, origins = random_batch()
    options = {"loss": loss, "aggregation": aggregation, "kl_coef": 0.1}
    value, gradient, seen, weights = run(arrays, origins, **options, shaping_gamma=0.2)
    assert value.dtype == jnp.float64

    def formula(log_probs):
        p = jnp.exp(log_probs)
        shaped = -(p / (p + 0.2)) * arrays[3][:, None] * weights
        return jnp.sum(jnp.where(origins == GUIDANCE, shaped, 0))

    off_value, off_gradient = jax.value_and_grad(formula)(arrays[0])
    guidance = origins == GUIDANCE
    assert np.all(np.asarray(off_gradient)[guidance] != 0)
    np.testing.assert_allclose(
        np.where(guidance, gradient, 0), off_gradient, rtol=1e-9, atol=1e-15
    )
    # The rest is what it is where guidance is padding, but for the weights.
    on_value, on_gradient, on_seen = alone(arrays, weights, guidance, loss)
    np.testing.assert_allclose(value, off_value + on_value, rtol=1e-9)
    np.testing.assert_allclose(
        np.where(guidance, 0, gradient), on_gradient, rtol=1e-9, atol=1e-15
    )
    jax.tree.map(np.testing.assert_array_equal, seen, on_seen)


def alone(arrays, weights, guidance, loss):
    """Returns loss, gradient and diagnostics of the tokens that are not guidance."""
    weights = jnp.where(guidance, 0, weights)
    (value, diagnostics), gradient = jax.jit(
        jax.value_and_grad(
            lambda log_probs: policy_loss(
                log_probs,
                *arrays[1:],
                weights,
                loss=loss,
                clip_low=0.2,
                clip_high=0.2,
                kl_coef=0.1,
            ),
            has_aux=True,
        )
    )(arrays[0])
    return value, gradient, diagnostics


@pytest.mark.parametrize("old", [True, False], ids=["old", "no old"])
@pytest.mark.parametrize("loss", Loss)
def test_without_guidance_all_treatments_are_one(loss, old):
    arrays, origins = random_batch()
    origins = np.where(origins == GUIDANCE, SAMPLED, origins)
    if not old:
        arrays[1] = None
    masked, *others = (
        run(arrays, origins, treatment, loss=loss, kl_coef=0.1)
        for treatment in GuidanceLoss
    )
    assert np.all((np.asarray(masked[1]) != 0) <= (origins == SAMPLED))
    assert np.any(masked[1])
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, masked)


@pytest.mark.parametrize("loss", Loss)
def test_rows_without_guidance_do_not_change(loss):
    """With fixed weights: those of SEQUENCE_SUM do not know the guidance."""
    arrays, origins = random_batch()
    options = {"loss": loss, "aggregation": Aggregation.SEQUENCE_SUM, "kl_coef": 0.1}
    expected = run(arrays, origins, GuidanceLoss.MASK, **options)
    actual = run(arrays, origins, GuidanceLoss.OFF_POLICY, **options)
    plain = ~np.any(origins == GUIDANCE, axis=1)
    assert plain.any() and not plain.all()
    np.testing.assert_array_equal(actual[1][plain], expected[1][plain])
    assert np.all(np.asarray(actual[1][~plain])[:, 0] != 0)


@pytest.mark.parametrize("loss", Loss)
def test_what_was_recorded_off_the_policy_changes_nothing(loss):
    arrays, origins = random_batch()
    clean = run(arrays, origins, loss=loss, kl_coef=0.1)
    for garbage in (0.0, -1e30, np.nan):
        dirty = [
            jnp.where(origins == GUIDANCE, jnp.float32(garbage), array)
            for array in arrays[1:3]
        ]
        actual = run([arrays[0], *dirty, arrays[3]], origins, loss=loss, kl_coef=0.1)
        jax.tree.map(np.testing.assert_array_equal, actual, clean)


@pytest.mark.parametrize("log_prob", [0.0, -1e-8, -90.0, -1e30])
def test_unlikely_and_certain_tokens_stay_finite(log_prob):
    arrays = [jnp.full((1, 2), log_prob), None, None, jnp.array([-3.0])]
    origins = np.full((1, 2), GUIDANCE, np.uint8)
    value, gradient, _, _ = run(arrays, origins)
    p = np.exp(log_prob)
    np.testing.assert_allclose(value, 3 * p / (p + 0.1), rtol=1e-5, atol=1e-37)
    expected = 3 * p * 0.1 / (p + 0.1) ** 2 / 2
    np.testing.assert_allclose(gradient, [[expected] * 2], rtol=1e-5, atol=1e-37)


def test_gamma_must_be_positive():
    arrays, origins = random_batch()
    with pytest.raises(ValueError, match="shaping_gamma is 0.0: it must be above 0"):
        run(arrays, origins, shaping_gamma=0.0)
