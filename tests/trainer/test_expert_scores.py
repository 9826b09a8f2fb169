"""Experts get the log-probs that a model gives them, token for token."""

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.policy import huggingface, presets, transformer
from grpo_jax.rewards.tags import COMPACT
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks.experts import segments
from grpo_jax.tasks.load import load_task
from grpo_jax.trainer import expert_scores
from tests import helpers

TEMPERATURE = 0.7
EXPERTS = 6


def save(folder, tokenizer):
    """A model directory with random weights; returns its architecture and weights."""
    tokenizer = load_tokenizer(tokenizer)
    arch = presets.preset("miniature-agent", tokenizer.vocab_size)
    params = helpers.params_of(arch, seed=5)
    huggingface.save_pretrained(
        folder, params, arch, dtype="float32", tokenizer=tokenizer
    )
    return arch, params


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    return str(folder), *save(folder, "search-characters")


def config_of(**rollout):
    return c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature-agent",
            tokenizer="search-characters",
            dtype=choices.Dtype.FLOAT32,
        ),
        task=c.TaskConfig(
            name="world",
            tags=choices.Tags.COMPACT,
            world=WorldConfig(
                entities=64,
                train_questions=EXPERTS,
                validation_questions=1,
                test_questions=1,
            ),
        ),
        rollout=c.RolloutConfig(
            **{
                "prompts_per_step": 4,
                "group_size": 2,
                "max_prompt_tokens": 64,
                "max_completion_tokens": 400,
                "sampling": c.SamplingConfig(temperature=TEMPERATURE),
                **rollout,
            }
        ),
        reward=c.RewardConfig(weights={"david": 1.0}),
    ).seal()


def test_they_are_those_of_one_pass_over_the_whole_row(model, monkeypatch):
    folder, arch, params = model
    monkeypatch.setattr(expert_scores, "_ROWS", 4)  # two rounds
    config = config_of()
    rows, left_out = expert_scores.score_experts(config, folder)
    assert (len(rows), left_out) == (EXPERTS, 0)
    task, tokenizer = load_task(config.task, config.reward), load_tokenizer(folder)

    @jax.jit
    def score(tokens):
        hidden = transformer.forward(params, arch, tokens)
        return jax.nn.log_softmax(transformer.logits(params, hidden) / TEMPERATURE)

    for row, example in zip(rows, task.train, strict=True):
        assert row["question"] == example.question
        assert row["golden_answers"] == list(example.columns["golds"])
        turns = task.experts[example.id]
        pieces = [tokenizer.encode(each.text) for each in segments(COMPACT, turns)]
        pieces[-1].append(tokenizer.eos_ids[0])
        tokens = tokenizer.encode(example.question)
        places = []
        for number, piece in enumerate(pieces):
            if number % 2 == 0:
                places.append(range(len(tokens), len(tokens) + len(piece)))
            tokens += piece
        table = score(np.pad(tokens, (0, 464 - len(tokens)))[None])[0]
        for turn, known, at in zip(row["turns"], turns, places, strict=True):
            assert (turn["query"], turn["answer"]) == (known.query, known.answer)
            assert [each["id"] for each in turn["documents"]] == [
                each.id for each in known.documents
            ]
            expected = [float(table[place - 1, tokens[place]]) for place in at]
            np.testing.assert_allclose(turn["log_probs"], expected, atol=2e-4)
            assert max(turn["log_probs"]) <= 0 and min(expected) < -1


def test_those_that_the_run_would_not_use_are_left_out(model):
    config = config_of(max_completion_tokens=120)
    rows, left_out = expert_scores.score_experts(config, model[0])
    assert len(rows) + left_out == EXPERTS and rows and left_out
    lengths = [sum(len(turn["log_probs"]) for turn in row["turns"]) for row in rows]
    assert max(lengths) < 120
    with pytest.raises(ValueError, match="knows 6 experts, and none of them fits"):
        expert_scores.score_experts(config_of(max_completion_tokens=24), model[0])


def test_a_model_of_another_tokenizer_is_refused(tmp_path):
    save(tmp_path / "other", "characters")
    with pytest.raises(
        ValueError, match=r"--model, .*other tokens .*search-characters"
    ):
        expert_scores.score_experts(config_of(), str(tmp_path / "other"))
