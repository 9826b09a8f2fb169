"""What a run is built from: the rewards that its configuration names."""

import dataclasses

import pytest

from grpo_jax import config as c
from grpo_jax.trainer import run as runs
from tests.rewards.helpers import completion


def build(weights, cosine_tokens=0):
    reward = c.RewardConfig(weights=weights)
    reward.cosine.max_tokens = cosine_tokens
    arithmetic = c.ArithmeticConfig(
        train_problems=4, validation_problems=1, test_problems=1
    )
    config = c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="characters"),
        task=c.TaskConfig(arithmetic=arithmetic),
        rollout=c.RolloutConfig(max_prompt_tokens=16, max_completion_tokens=20),
        reward=reward,
    )
    return runs.build(config.seal())


def test_log_probs_are_taken_at_the_sampling_temperature_unless_told_otherwise():
    run = build({"accuracy": 1.0})
    sampled_at = c.SamplingConfig(temperature=0.7)
    rollout = dataclasses.replace(run.config.rollout, sampling=sampled_at)
    for temperature, expected in ((0.0, 0.7), (1.0, 1.0)):
        objective = c.ObjectiveConfig(temperature=temperature)
        config = dataclasses.replace(run.config, rollout=rollout, objective=objective)
        scorer = dataclasses.replace(run, config=config.seal()).scorer()
        assert scorer.temperature == expected


def test_rewards_of_the_task_and_built_in(capsys):
    weights = {"accuracy": 1.0, "cosine": 2.0, "length": 0.5, "format": 0.0}
    run = build(weights)
    assert {name: weight for name, (weight, _) in run.rewards.items()} == weights
    rows = [
        completion("<answer>4</answer>", tokens=tokens, reference=reference, limit=20)
        for tokens, reference in ((20, "4"), (20, "5"), (0, "5"))
    ]
    found = {name: list(reward(rows)) for name, (_, reward) in run.rewards.items()}
    assert found["accuracy"] == [1, 0, 0]
    assert found["cosine"] == pytest.approx([0.5, -0.5, -1.0])
    assert found["length"] == [-0.5, -0.5, 0]
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "tokens", "warns"),
    [
        ({"cosine": 1.0}, 40, True),
        ({"cosine": 1.0}, 20, False),
        ({"accuracy": 1.0}, 40, False),
    ],
)
def test_a_cosine_that_ends_elsewhere_is_said(capsys, weights, tokens, warns):
    build(weights, tokens)
    said = " ".join(capsys.readouterr().out.split())
    assert ("warning: config.reward.cosine.max_tokens is 40, but" in said) is warns
