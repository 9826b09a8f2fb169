import dataclasses

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig, RolloutConfig, TrainConfig
from grpo_jax.records import Origin, TrainBatch, Trajectories
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
    expected = np.zeros((4, 12), np.float32)
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
    np.testing.assert_array_equal(weights, np.zeros((4, 12)))


def test_what_was_not_sampled_has_no_weight(trajectories):
    origins = trajectories.origins.copy()
    origins[2, 2:4] = Origin.GUIDANCE
    origins[3, 3] = Origin.OBSERVATION
    changed = dataclasses.replace(trajectories, origins=origins)
    weights = make(changed, [1, 0, 1, 0]).loss_weights
    np.testing.assert_allclose(weights[2, :6], [0, 0, 0, 0, 1 / 8, 1 / 8], rtol=1e-6)
    np.testing.assert_allclose(weights[3, :6], [0, 0, 1 / 8, 0, 1 / 8, 0], rtol=1e-6)
    assert (weights[:, 6:] == 0).all()


def test_a_batch_is_the_trajectories_with_their_weights(trajectories):
    batch = make(trajectories, [1, 0, 1, 0])
    for name in ("tokens", "origins", "prompt_lengths", "behavior_log_probs"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(trajectories, name))
    assert batch.old_log_probs is None and batch.reference_log_probs is None


@pytest.mark.parametrize(
    ("longest", "widest", "expected"),
    [
        (1, 64, 8),
        (8, 64, 8),
        (9, 64, 16),
        (9, 44, 16),  # an eighth is 6, and widths are multiples of 8
        (41, 44, 44),
        (105, 832, 208),
        (3, 3, 3),
    ],
)
def test_round_width(longest, widest, expected):
    assert batches.round_width(longest, widest) == expected


def test_few_widths_hold_every_row():
    for widest in range(1, 300):
        widths = [batches.round_width(n, widest) for n in range(1, widest + 1)]
        assert all(n <= width <= widest for n, width in enumerate(widths, start=1))
        assert len(set(widths)) <= 8


def rows_of(lengths, widest):
    """Rows of these lengths, whose tokens tell the row and the column."""
    lengths = np.array(lengths)
    columns = np.arange(widest)[None]
    real = columns < lengths[:, None]
    tokens = np.where(real, 1000 * np.arange(1, len(lengths) + 1)[:, None] + columns, 0)
    return TrainBatch(
        tokens=tokens.astype(np.int32),
        origins=np.where(real, Origin.SAMPLED, Origin.PAD).astype(np.uint8),
        prompt_lengths=np.maximum(lengths // 2, 1).astype(np.int32),
        advantages=np.arange(len(lengths)).astype(np.float32),
        loss_weights=np.where(real, tokens, 0).astype(np.float32),
        behavior_log_probs=-tokens.astype(np.float32),
    )


def shapes_of(micros):
    return [micro.tokens.shape for micro in micros]


def test_rows_are_cut_longest_first_within_the_budget():
    batch = rows_of([5, 60, 17, 5, 33, 16, 60, 2], 64)
    micros = batches.micro_batches(batch, widest=64, budget_tokens=128, row_shards=1)
    # 128 slots are 2 rows of 64, 3 of 40, 8 of 8; of 8 rows a quarter is enough for 2.
    assert shapes_of(micros) == [(2, 64), (3, 40), (4, 8)]
    rows = [micro.advantages.tolist() for micro in micros]
    assert rows == [[1, 6], [4, 2, 5], [0, 3, 7, 0]]


@pytest.mark.parametrize(
    ("rows", "expected"), [(8, 8), (9, 2), (10, 2), (11, 4), (12, 4), (13, 8), (16, 8)]
)
def test_the_last_micro_batch_has_one_of_three_sizes(rows, expected):
    micros = batches.micro_batches(
        rows_of([8] * rows, 64), widest=64, budget_tokens=64, row_shards=1
    )
    whole = [(8, 8)] * (len(micros) - 1)
    assert shapes_of(micros) == [*whole, (expected, 8)]


def test_rows_of_an_update_that_fit_are_one_micro_batch():
    micros = batches.micro_batches(
        rows_of([60] * 5, 64), widest=64, budget_tokens=10_000, row_shards=1
    )
    assert shapes_of(micros) == [(5, 64)]


def test_every_micro_batch_splits_over_the_devices():
    batch = rows_of([60, 60, 60, 30, 20, 10, 5, 5, 5], 64)
    for budget, expected in (
        (1, [(4, 64), (4, 24), (4, 8)]),  # never less than a row each
        (700, [(8, 64), (4, 8)]),
        (10_000, [(12, 64)]),
    ):
        micros = batches.micro_batches(
            batch, widest=64, budget_tokens=budget, row_shards=4
        )
        assert shapes_of(micros) == expected


@pytest.mark.parametrize("budget", [1, 100, 400, 10_000])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("missing", [0, 5])
def test_micro_batches_hold_every_token_once(budget, shards, missing):
    """Also where the rows have fewer columns than the longest possible one."""
    lengths = np.random.default_rng(0).integers(1, 50, 23)
    batch = rows_of(lengths, 55 - missing)
    micros = batches.micro_batches(
        batch, widest=55, budget_tokens=budget, row_shards=shards
    )
    for name in ("tokens", "loss_weights", "behavior_log_probs", "advantages"):
        values = [getattr(micro, name) for micro in micros]
        joined = np.concatenate([value.ravel() for value in values])
        expected = getattr(batch, name)
        assert joined.sum() == expected.sum()
        assert sorted(joined[joined != 0]) == sorted(expected[expected != 0])
        if expected.ndim == 2:
            np.testing.assert_array_equal(batches.in_order(batch, values), expected)
    for micro in micros:
        filled = micro.tokens[:, 0] == 0
        assert (micro.origins[filled] == Origin.PAD).all()
        assert (micro.prompt_lengths >= 1).all()
        assert micro.tokens.dtype == micro.prompt_lengths.dtype == np.int32
    slots = sum(micro.tokens.size for micro in micros)
    expected = 1 - lengths.sum() / slots
    assert batches.padding_fraction(micros) == pytest.approx(expected)


def test_sorting_saves_most_of_the_padding():
    """Rows of geometric lengths: three fifths of the slots of one width are empty."""
    rng = np.random.default_rng(0)
    shapes, fractions = set(), []
    for _ in range(20):
        lengths = 100 + np.minimum(rng.geometric(1 / 300, 256), 924)
        batch = rows_of(lengths, 1024)
        micros = batches.micro_batches(
            batch, widest=1024, budget_tokens=16_384, row_shards=1
        )
        shapes |= set(shapes_of(micros))
        fractions.append(batches.padding_fraction(micros))
        assert 1 - lengths.sum() / batch.tokens.size > 0.5
    assert np.mean(fractions) < 0.25 and len(shapes) <= 12


def test_demonstrations_are_averaged_over_the_experts_tokens():
    origins = np.array([[1, 4, 4, 0], [1, 1, 4, 4], [1, 4, 2, 5]], np.uint8)
    np.testing.assert_allclose(
        batches.supervised_weights(origins), (origins == Origin.EXPERT) / 5, rtol=1e-6
    )
