import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import Advantage
from grpo_jax.objective.advantages import group_advantages

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "trl_losses.npz"
NAN = float("nan")


def advantages(rewards, kind=Advantage.GROUP_STD, group_size=None, epsilon=1e-4):
    size = group_size or len(rewards)
    array = jnp.asarray(rewards, float)
    return group_advantages(array, group_size=size, kind=kind, epsilon=epsilon)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([3, 3, 3, 3, 3, 3], [0] * 6),
        ([3, 1, 0, 0, 0, 0], [1.9265, 0.2752] + [-0.5504] * 4),
        ([3, 3, 3, 3, 3, 0], [0.4082] * 5 + [-2.0411]),
        ([3, 3, 3, 3, 3, 1], [0.4082] * 5 + [-2.0410]),
        ([3, 0, 0, 0, 0, 0], [2.0411] + [-0.4082] * 5),
        ([1, 1, 1, 0, 0, 0], [0.9127] * 3 + [-0.9127] * 3),
        ([3, 1, 1, 1, 0, 0], [1.8256, 0, 0, 0, -0.9128, -0.9128]),
        ([1, 0], [0.70701, -0.70701]),
        ([1, 1, 0, 0], [0.86588, 0.86588, -0.86588, -0.86588]),
        ([1, 0, 0, 0], [1.49970, -0.49990, -0.49990, -0.49990]),
    ],
)
def test_group_std_literals(rewards, expected):
    np.testing.assert_allclose(advantages(rewards), expected, rtol=0, atol=6e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Advantage.GROUP_MEAN, [2, -1, -1, 0, 1, -1]),
        (Advantage.LEAVE_ONE_OUT, [3, -1.5, -1.5, 0, 1.5, -1.5]),
        # Rewards 3 0 0 | 1 2 0: mean 1, squares 4 1 1 0 1 1, variance 8/5.
        (Advantage.BATCH_STD, np.array([2, -1, -1, 0, 1, -1]) / (1.6**0.5 + 1e-4)),
    ],
)
def test_other_baselines_literals(kind, expected):
    actual = advantages([3, 0, 0, 1, 2, 0], kind, group_size=3)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("batch", range(3))
def test_matches_trl(float64, batch):
    data = np.load(FIXTURE)
    group_size = json.loads(str(data["cases"]))["group_size"]
    actual = advantages(data[f"{batch}/rewards"], group_size=group_size)
    np.testing.assert_allclose(
        actual, data[f"{batch}/advantages"], rtol=1e-12, atol=1e-15
    )


def slow_advantages(rewards, group_size, kind, epsilon):
    """Computes them one row at a time."""
    result = []
    batch = rewards[~np.isnan(rewards)]
    for row, reward in enumerate(rewards):
        first = row - row % group_size
        group = rewards[first : first + group_size]
        group = group[~np.isnan(group)]
        if np.isnan(reward) or len(group) < 2 or np.ptp(group) == 0:
            result.append(0.0)
            continue
        centred = reward - group.mean()
        match kind:
            case Advantage.GROUP_MEAN:
                result.append(centred)
            case Advantage.GROUP_STD:
                result.append(centred / (group.std(ddof=1) + epsilon))
            case Advantage.BATCH_STD:
                result.append(centred / (batch.std(ddof=1) + epsilon))
            case Advantage.LEAVE_ONE_OUT:
                others = (group.sum() - reward) / (len(group) - 1)
                result.append(reward - others)
    return result


@pytest.mark.parametrize("kind", Advantage)
@pytest.mark.parametrize("epsilon", [0.0, 1e-4])
def test_matches_slow_reference_with_missing_rewards(float64, kind, epsilon):
    rng = np.random.default_rng(1)
    rewards = rng.integers(0, 3, 60).astype(float)
    rewards[rng.random(60) < 0.3] = NAN
    rewards[:4] = [NAN, NAN, NAN, NAN]
    rewards[4:8] = [1, NAN, NAN, NAN]
    actual = advantages(rewards, kind, group_size=4, epsilon=epsilon)
    expected = slow_advantages(rewards, 4, kind, epsilon)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", Advantage)
@pytest.mark.parametrize("epsilon", [0.0, 1e-4])
@pytest.mark.parametrize("size", [6, 8])
def test_equal_rewards_give_exact_zeros(kind, epsilon, size):
    rewards = [0.1] * size + [0.7] * size
    actual = advantages(rewards, kind, group_size=size, epsilon=epsilon)
    np.testing.assert_array_equal(actual, 0)
    one_group = advantages([0.1] * size, kind, epsilon=epsilon)
    np.testing.assert_array_equal(one_group, 0)


@pytest.mark.parametrize("kind", Advantage)
def test_missing_rewards_get_zero_and_leave_the_others_as_if_absent(kind):
    actual = advantages([1, NAN, 0, 3, NAN], kind)
    np.testing.assert_array_equal(actual[jnp.array([1, 4])], 0)
    without = advantages([1, 0, 3], kind)
    np.testing.assert_allclose(actual[jnp.array([0, 2, 3])], without, rtol=1e-6)
    np.testing.assert_array_equal(advantages([NAN] * 4, kind), 0)
    np.testing.assert_array_equal(advantages([NAN, 2, NAN, NAN], kind), 0)


@pytest.mark.parametrize("kind", Advantage)
def test_sum_to_zero_in_each_group_and_ignore_a_constant(float64, kind):
    rewards = np.random.default_rng(2).normal(size=40)
    actual = advantages(rewards, kind, group_size=8)
    np.testing.assert_allclose(actual.reshape(5, 8).sum(1), 0, atol=1e-12)
    # The deviation of the whole batch sees a constant added to one group.
    groups = np.full(5, 9.0) if kind is Advantage.BATCH_STD else np.arange(5.0)
    shifted = advantages(rewards + np.repeat(groups, 8), kind, group_size=8)
    np.testing.assert_allclose(shifted, actual, rtol=1e-10, atol=1e-12)


def test_group_size_must_divide_rows():
    with pytest.raises(ValueError, match="group_size is 4: it must divide the 6 rows"):
        advantages([1, 2, 3, 4, 5, 6], group_size=4)


def test_second_call_does_not_recompile():
    traces = []

    @jax.jit
    def compute(rewards):
        traces.append(1)
        return advantages(rewards, group_size=2)

    compute(jnp.array([1.0, 0.0, 1.0, 1.0]))
    compute(jnp.array([0.0, 0.0, NAN, 1.0]))
    assert len(traces) == 1
