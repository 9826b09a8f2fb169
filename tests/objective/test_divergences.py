import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import Divergence
from grpo_jax.objective.divergences import MAX_LOG_RATIO, cap, divergence


def of_log_ratio(log_ratio, kind):
    """Computes the divergence where log reference - log policy is given."""
    log_ratio = jnp.asarray(log_ratio, float)
    return divergence(jnp.zeros_like(log_ratio), log_ratio, kind=kind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Divergence.K1, [0, -0.1, 0.1, -1, 1, -2, 3]),
        (Divergence.K2, [0, 0.005, 0.005, 0.5, 0.5, 2, 4.5]),
        (
            Divergence.K3,
            [0, 0.005171, 0.004837, 0.718282, 0.367879, 4.389056, 2.049787],
        ),
    ],
)
def test_literals(kind, expected):
    actual = of_log_ratio([0, 0.1, -0.1, 1, -1, 2, -3], kind)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=6e-7)


def test_k3_keeps_its_digits_near_zero():
    actual = of_log_ratio([1e-2, -1e-2], Divergence.K3)
    np.testing.assert_allclose(actual, [5.016708e-5, 4.983375e-5], rtol=3e-5)


def test_k3_is_never_negative():
    sizes = 10.0 ** np.linspace(-12, 2, 20_000)
    actual = of_log_ratio(np.concatenate([sizes, -sizes]), Divergence.K3)
    assert jnp.all(actual >= 0)


@pytest.mark.parametrize("kind", Divergence)
def test_extreme_log_ratios_stay_finite_with_their_gradients(kind):
    log_probs = jnp.array([0.0, -1e4, -90.0, -19.0])
    reference = jnp.array([-1e4, 0.0, 0.0, 0.0])
    value = divergence(log_probs, reference, kind=kind)
    gradient = jax.grad(lambda x: divergence(x, reference, kind=kind).sum())(log_probs)
    assert jnp.all(jnp.isfinite(value)) and jnp.all(jnp.isfinite(gradient))
    assert gradient[0] > 0  # a policy above its reference is always pushed down


@pytest.mark.parametrize("kind", Divergence)
def test_expected_gradient(float64, kind):
    """Differentiates E_policy[k] through the sample alone, exactly, over a vocabulary.

    As a loss K1's expected gradient is 0, K2's is that of KL(policy || reference) and
    K3's is that of KL(reference || policy).
    """
    rng = np.random.default_rng(0)
    logits, reference_logits = (jnp.asarray(rng.normal(size=9)) for _ in range(2))
    reference = jax.nn.log_softmax(reference_logits)

    def surrogate(logits):
        log_probs = jax.nn.log_softmax(logits)
        weights = jax.lax.stop_gradient(jnp.exp(log_probs))
        return jnp.sum(weights * divergence(log_probs, reference, kind=kind))

    def exact(logits):
        log_probs = jax.nn.log_softmax(logits)
        match kind:
            case Divergence.K1:
                return jnp.sum(logits) * 0
            case Divergence.K2:
                return jnp.sum(jnp.exp(log_probs) * (log_probs - reference))
            case Divergence.K3:
                return jnp.sum(jnp.exp(reference) * (reference - log_probs))

    np.testing.assert_allclose(
        jax.grad(surrogate)(logits), jax.grad(exact)(logits), atol=1e-14
    )


@pytest.mark.parametrize("kind", [Divergence.K1, Divergence.K3])
def test_k1_and_k3_are_unbiased(float64, kind):
    rng = np.random.default_rng(1)
    policy, reference = (
        jax.nn.log_softmax(jnp.asarray(rng.normal(size=9))) for _ in range(2)
    )
    estimate = jnp.sum(jnp.exp(policy) * divergence(policy, reference, kind=kind))
    expected = jnp.sum(jnp.exp(policy) * (policy - reference))
    np.testing.assert_allclose(estimate, expected, rtol=1e-13)


def test_cap_passes_the_gradient_at_the_bound():
    values = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(cap(values, 2.0), [1, 2, 2])
    gradient = jax.grad(lambda x: cap(x, 2.0).sum())(values)
    np.testing.assert_array_equal(gradient, [1, 1, 0])
    assert np.isfinite(np.float32(np.exp(MAX_LOG_RATIO)) ** 2)
