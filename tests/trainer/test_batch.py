import dataclasses

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig, RolloutConfig, TrainConfig
from grpo_jax.records import Origin, Trajectories
from grpo_jax.trainer import batch as batches

NAN = np.nan


def config(group_size, advantage=choices.Advantage.GROUP_STD):
    return TrainConfig(
        rollout=RolloutConfig(group_size=group_size),
        objective=ObjectiveConfig(advantage=advantage),
    )


@pytest.fixture
def trajectories():
    """Four rows of prompts 2 and completions 1, 2, 4 and 3, in 12 columns."""
    completions = np.array([1, 2, 4, 3], np.int32)
    prompts = np.full(4, 2, np.int32)
    columns = np.arange(12)[None]
    origins = np.full((4, 12), Origin.SAMPLED, np.uint8)
    origins[np.broadcast_to(columns < 2, origins.shape)] = Origin.PROMPT
    origins[columns >= 2 + completions[:, None]] = Origin.PAD
    return Trajectories(
        tokens=np.arange(48, dtype=np.int32).reshape(4, 12),
        origins=origins,
        behavior_log_probs=-np.arange(48, dtype=np.float32).reshape(4, 12),
        kept_log_mass=np.zeros((4, 12), np.float32),
        prompt_lengths=prompts,
        lengths=prompts + completions,
        finished=np.array([True, True, False, True]),
    )


def make(trajectories, rewards, **options):
    rewards = np.array(rewards, np.float64)
    return batches.make_batch(
        trajectories, rewards, np.ones(4, np.float32), ObjectiveConfig(**options), 8
    )


def test_advantages():
    rewards = np.array([3, 1, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3.0])
    expected = [1.9265, 0.2752, *[-0.5504] * 4, *[0.0] * 6]
    got = batches.advantages_of(rewards, config(6))
    np.testing.assert_allclose(got, expected, atol=5e-5)
    assert got.dtype == np.float32


def test_a_row_without_a_reward_has_no_advantage_and_no_part_in_its_group():
    rewards = np.array([NAN, 1, 0, 1, NAN, NAN, NAN, 5, NAN, NAN, NAN, NAN])
    got = batches.advantages_of(rewards, config(4, choices.Advantage.GROUP_MEAN))
    np.testing.assert_allclose(got, [0, 1 / 3, -2 / 3, 1 / 3] + [0] * 8, atol=1e-7)


def test_weights_are_over_sampled_tokens(trajectories):
    batch = make(trajectories, [1, 0, 1, 0])
    expected = np.zeros((4, 6), np.float32)
    for row, count in enumerate([1, 2, 4, 3]):
        expected[row, 2 : 2 + count] = 1 / (4 * count)
    np.testing.assert_allclose(batch.loss_weights, expected, rtol=1e-6)
    assert batch.loss_weights.dtype == np.float32


@pytest.mark.parametrize(
    ("rewards", "options", "kept"),
    [
        ([1, NAN, 1, 0], {}, [0, 2, 3]),
        ([1, 0, 1, 0], {"mask_truncated": True}, [0, 1, 3]),
        ([NAN, 0, 1, 0], {"mask_truncated": True}, [1, 3]),
    ],
)
def test_rows_left_out_leave_numerator_and_denominator(
    trajectories, rewards, options, kept
):
    tokens = np.array([1, 2, 4, 3])
    mean = make(trajectories, rewards, **options).loss_weights
    assert mean.sum() == pytest.approx(1)
    for row in range(4):
        each = 1 / (len(kept) * tokens[row]) if row in kept else 0
        np.testing.assert_allclose(mean[row, 2 : 2 + tokens[row]], each, rtol=1e-6)
    options |= {"aggregation": choices.Aggregation.TOKEN_MEAN}
    mean = make(trajectories, rewards, **options).loss_weights
    assert mean.sum() == pytest.approx(1)
    assert mean.max() == pytest.approx(1 / tokens[kept].sum())
    options |= {"aggregation": choices.Aggregation.CONSTANT}
    constant = make(trajectories, rewards, **options).loss_weights
    assert constant.max() == pytest.approx(1 / (len(kept) * 8))


def test_a_batch_without_any_reward_has_no_weight(trajectories):
    weights = make(trajectories, [NAN] * 4).loss_weights
    np.testing.assert_array_equal(weights, np.zeros((4, 6)))


def test_what_was_not_sampled_has_no_weight(trajectories):
    origins = trajectories.origins.copy()
    origins[2, 2:4] = Origin.GUIDANCE
    origins[3, 3] = Origin.OBSERVATION
    changed = dataclasses.replace(trajectories, origins=origins)
    weights = make(changed, [1, 0, 1, 0]).loss_weights
    np.testing.assert_allclose(weights[2], [0, 0, 0, 0, 1 / 8, 1 / 8], rtol=1e-6)
    np.testing.assert_allclose(weights[3], [0, 0, 1 / 8, 0, 1 / 8, 0], rtol=1e-6)


def test_columns_past_the_longest_row_are_cut(trajectories):
    batch = make(trajectories, [1, 0, 1, 0])
    np.testing.assert_array_equal(batch.tokens, trajectories.tokens[:, :6])
    np.testing.assert_array_equal(batch.origins, trajectories.origins[:, :6])
    np.testing.assert_array_equal(
        batch.behavior_log_probs, trajectories.behavior_log_probs[:, :6]
    )
    assert batch.old_log_probs is None and batch.reference_log_probs is None


@pytest.mark.parametrize(
    ("longest", "widest", "expected"),
    [(1, 32, 8), (8, 32, 8), (9, 32, 16), (25, 32, 32), (25, 30, 30), (3, 3, 3)],
)
def test_trim_width(longest, widest, expected):
    assert batches.trim_width(longest, widest) == expected


def test_few_widths_hold_every_row():
    for widest in range(1, 70):
        widths = [batches.trim_width(n, widest) for n in range(1, widest + 1)]
        assert all(n <= width <= widest for n, width in enumerate(widths, start=1))
        assert len(set(widths)) <= 4


def test_demonstrations_are_averaged_over_the_experts_tokens():
    origins = np.array([[1, 4, 4, 0], [1, 1, 4, 4], [1, 4, 2, 5]], np.uint8)
    np.testing.assert_allclose(
        batches.supervised_weights(origins), (origins == Origin.EXPERT) / 5, rtol=1e-6
    )
