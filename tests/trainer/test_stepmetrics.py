import dataclasses

import numpy as np

from grpo_jax import config as c
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import stepmetrics

CONFIG = c.TrainConfig(rollout=c.RolloutConfig(group_size=2))


def table(totals):
    totals = np.asarray(totals, float)
    return RewardTable(("accuracy",), totals[:, None], totals)


def test_groups_that_agree_and_rows_without_a_reward():
    nan = float("nan")
    advantages = np.array([0.7, -0.7, 0, 0, 0, 0], np.float32)
    got = stepmetrics.reward_metrics(table([1, 0, 1, 1, nan, 1]), advantages, CONFIG)
    assert got["reward/mean"] == got["reward/accuracy"] == 0.8
    assert got["reward/zero_variance_fraction"] == 2 / 3
    np.testing.assert_allclose(got["reward/advantage_std"], 0.7 / 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(got["reward/unscored_fraction"], 1 / 6)
    # Standard deviations .7071, 0 and, of a single value, 0.
    np.testing.assert_allclose(got["reward/std_in_group"], 0.5**0.5 / 3)


def test_nothing_scored_is_not_a_number():
    nan = float("nan")
    got = stepmetrics.reward_metrics(table([nan, nan]), np.zeros(2, np.float32), CONFIG)
    assert np.isnan(got["reward/mean"]) and got["reward/unscored_fraction"] == 1


def test_lengths_and_truncation():
    tokens = np.zeros((4, 9), np.int32)
    trajectories = Trajectories(
        tokens=tokens,
        origins=np.full(tokens.shape, Origin.SAMPLED, np.uint8),
        behavior_log_probs=np.zeros(tokens.shape, np.float32),
        kept_log_mass=np.where(np.arange(9) == 5, np.log(0.8), 0)[None]
        .repeat(4, 0)
        .astype(np.float32),
        prompt_lengths=np.array([2, 2, 3, 3], np.int32),
        lengths=np.array([4, 8, 5, 9], np.int32),
        finished=np.array([True, False, True, False]),
    )
    prompts = [
        EncodedPrompt(Example(id=tier, question="", reference="", tier=tier), "", [1])
        for tier in (1, 4)
    ]
    got = stepmetrics.rollout_metrics(trajectories, prompts, 36)
    assert got["rollout/tier_mean"] == 2.5
    assert got["rollout/generated_tokens"] == 36
    assert got["rollout/completion_tokens_mean"] == 4
    assert got["rollout/completion_tokens_max"] == 6
    assert got["rollout/finished_tokens_mean"] == 2
    assert got["rollout/truncated_fraction"] == 0.5
    np.testing.assert_allclose(got["rollout/kept_mass_min"], 0.8, rtol=1e-6)
    none = dataclasses.replace(trajectories, finished=np.zeros(4, bool))
    got = stepmetrics.rollout_metrics(none, prompts, 36)
    assert np.isnan(got["rollout/finished_tokens_mean"])
