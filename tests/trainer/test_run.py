"""What a run is built from: the rewards that its configuration names."""

import dataclasses
import json

import pytest

from grpo_jax import config as c
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.trainer import run as runs
from tests.rewards.helpers import completion


def build(weights, cosine_tokens=0):
    reward = c.RewardConfig(weights=weights)
    reward.cosine.max_tokens = cosine_tokens
    arithmetic = ArithmeticConfig(
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


def agent(tmp_path, *, titles=("Ada Fox",), **episode):
    """A configuration of questions about a folder of two text files."""
    (tmp_path / "notes").mkdir(exist_ok=True)
    for name in ("Ada Fox", "Old Rook"):
        (tmp_path / "notes" / f"{name}.txt").write_text(f"{name} is here.")
    row = {"question": "who?", "answer": "Ada", "supporting_titles": titles}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    return c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="search-characters"),
        task=c.TaskConfig(name="multihop", train_path=str(tmp_path / "rows.jsonl")),
        rollout=c.RolloutConfig(max_prompt_tokens=16, max_completion_tokens=60),
        episode=c.EpisodeConfig(environment="search", **episode),
        retrieval=RetrievalConfig(corpus_path=str(tmp_path / "notes")),
        reward=c.RewardConfig(weights={"david": 1.0}),
    )


def test_evidence_is_in_the_corpus_that_is_searched(tmp_path, capsys):
    run = runs.build(agent(tmp_path, titles=("ada fox", "Gone")).seal())
    (example,) = run.task.train
    assert example.columns["evidence"] == (("Ada Fox.txt#1",), ())
    assert "1 titles of pages that questions need, such as 'Gone'" in (
        " ".join(capsys.readouterr().out.split())
    )
    run.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titles": ("Gone",)}, "such as 'Gone', are no title in .*notes: 100.0%"),
        (
            {"reply_tokens": 3},
            r"reply_tokens is 3 and the end of a reply alone takes 3",
        ),
        (
            {"answer_tokens": 55},
            r"max_completion_tokens is 60, of which .*answer_tokens leaves 5: no reply",
        ),
    ],
)
def test_episodes_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        runs.build(agent(tmp_path, **changes).seal())
