import math

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.reward_config import LanguageConfig, RepetitionConfig
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import monitors

NAN = math.nan


def completions(texts=None, lengths=None, group_size=2):
    texts = texts or [""] * len(lengths)
    lengths = lengths or [1] * len(texts)
    return [
        Completion("q", text, "", tokens, True, row // group_size, {})
        for row, (text, tokens) in enumerate(zip(texts, lengths, strict=True))
    ]


def table(**columns):
    values = np.stack([np.array(each, float) for each in columns.values()], axis=1)
    return RewardTable(tuple(columns), values, values[:, 0])


def test_texts_are_seen_with_the_parameters_of_the_rewards():
    # Letters: 4 of 8, none, all; trigrams of words: 2 of 4 repeat, none, none.
    rows = completions(["abcd абвг", "", "a a a a a a"])
    got = monitors.text_metrics(rows, c.TrainConfig())
    assert got["rollout/script_fraction"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert got["rollout/repeated_fraction"] == pytest.approx((0 + 0 + 3 / 4) / 3)
    config = c.TrainConfig(
        reward=c.RewardConfig(
            language=LanguageConfig(choices.Script.CYRILLIC),
            repetition=RepetitionConfig(ngram=1),
        )
    )
    got = monitors.text_metrics(rows, config)
    assert got["rollout/script_fraction"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert got["rollout/repeated_fraction"] == pytest.approx((0 + 0 + 5 / 6) / 3)


def test_the_spread_of_every_reward_in_its_groups():
    got = monitors.spread_metrics(
        table(format=[1, 0, 1, 1, NAN, 1], style=[0.1, 0.1, 0.2, 0.2, NAN, NAN]), 2
    )
    # Groups with two values: one of standard deviation .7071, one of 0.
    assert got["reward_std_in_group/format"] == pytest.approx(math.sqrt(0.5) / 2)
    assert got["reward_std_in_group/style"] == pytest.approx(0, abs=1e-12)
    assert "reward/all_wrong_fraction" not in got


def test_groups_of_one_verdict():
    got = monitors.spread_metrics(
        table(accuracy=[1, 1, 1, NAN, 0, NAN, 0, 1, NAN, NAN]), 2
    )
    # Right: the first two; wrong: the third; the last has no verdict at all.
    assert got["reward/all_right_fraction"] == 2 / 4
    assert got["reward/all_wrong_fraction"] == 1 / 4


def test_nothing_scored_says_nothing():
    nothing = table(accuracy=[NAN, NAN, NAN, NAN])
    got = monitors.metrics(completions(lengths=[1, 2, 3, 4]), nothing, config_of(2))
    spoken = {name for name, value in got.items() if not np.isnan(value)}
    assert spoken == {"rollout/script_fraction", "rollout/repeated_fraction"}


def config_of(group_size):
    return c.TrainConfig(rollout=c.RolloutConfig(group_size=group_size))


def test_length_and_reward():
    # A hard prompt of long, wrong completions; in both groups longer is better.
    rows = completions(lengths=[10, 20, 110, 120])
    got = monitors.length_metrics(rows, table(accuracy=[1, 2, -2, -1]), 2)
    assert got["reward/length_correlation_in_group"] == pytest.approx(1)
    a, b = np.array([1, 2, -2, -1]), np.array([10, 20, 110, 120])
    assert got["reward/length_correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert got["reward/length_correlation"] < -0.9


def test_rows_without_a_reward_are_no_part_of_a_correlation():
    rows = completions(lengths=[1, 2, 900, 7, 5, 900], group_size=3)
    rewards = table(accuracy=[0, 1, NAN, 0, 1, NAN])
    got = monitors.length_metrics(rows, rewards, 3)
    # Differences (-.5, .5, -.5, .5) against (-.5, .5, 1, -1): -.5 / sqrt(1 x 2.5).
    expected = -0.5 / math.sqrt(1 * 2.5)
    assert got["reward/length_correlation_in_group"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rewards", "lengths"),
    [([0.1] * 4, [1, 2, 3, 4]), ([0, 1, 0, 1], [7] * 4), ([0.1, 0.1, 0.7, 0.7], None)],
)
def test_without_a_spread_there_is_no_correlation(rewards, lengths):
    rows = completions(lengths=lengths or [5, 9, 2, 3])
    got = monitors.length_metrics(rows, table(accuracy=rewards), 2)
    assert np.isnan(got["reward/length_correlation_in_group"])
