"""The rewards that every task has: their names, parameters and one accuracy."""

import inspect
import math
import pathlib
import re

import pytest

from grpo_jax.choices import Script
from grpo_jax.config import RewardConfig
from grpo_jax.reward_config import (
    CosineConfig,
    LanguageConfig,
    OverlongConfig,
    RepetitionConfig,
)
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import once
from grpo_jax.rewards.builtin import builtin_rewards
from tests.rewards.helpers import completion, given

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "rewards.md"


def values(rows, accuracy=(), limit=100, **sections):
    config = RewardConfig(**sections).seal("config.reward")
    known = builtin_rewards(given(accuracy), config, limit)
    return {name: list(reward(rows)) for name, reward in known.items()}


def test_limits_are_those_of_the_completions_unless_they_are_given():
    rows = [completion(tokens=tokens) for tokens in (75, 80, 100)]
    found = values(rows, [1, 0, 1])
    assert found["soft_overlong"] == pytest.approx([0, -0.2, -1])
    assert found["cosine"][2] == 0.5
    found = values(
        rows,
        [1, 0, 1],
        cosine=CosineConfig(max_tokens=200),
        overlong=OverlongConfig(max_tokens=90, buffer_tokens=20),
    )
    assert found["soft_overlong"] == pytest.approx([-0.25, -0.5, -1])
    assert found["cosine"][2] == pytest.approx(0.75)
    short = [completion(tokens=1, limit=1), completion(tokens=20, limit=40)]
    found = values(short, [1, 1])
    assert found["soft_overlong"] == [-1, 0]
    assert found["cosine"] == pytest.approx([0.5, 0.75])
    with pytest.raises(ValueError, match="without a limit: give the reward's max_"):
        values([completion(limit=0)], [1])


def test_parameters_reach_their_rewards():
    rows = [completion("да да да", tokens=0)]
    found = values(rows, [1])
    assert (found["repetition_penalty"], found["language"]) == ([0.0], [0.0])
    found = values(
        rows,
        [1],
        cosine=CosineConfig(correct_short=3.0, wrong_short=-3.0),
        repetition=RepetitionConfig(ngram=1, penalty=-3.0),
        language=LanguageConfig(script=Script.CYRILLIC),
    )
    assert (found["repetition_penalty"], found["language"]) == ([-2.0], [1.0])
    assert found["cosine"] == [3.0]
    legacy = 0.75 + 0.25 * math.cos(math.pi * len("да да да") / 100)
    assert found["legacy_open_rs_cosine"] == pytest.approx([legacy])


def test_a_batch_is_checked_once_for_all_rewards():
    batches = []

    @once
    def accuracy(completions):
        """Slow."""
        batches.append(len(completions))
        return [1.0, None, 0.0][: len(completions)]

    known = builtin_rewards(accuracy, RewardConfig(), 100)
    rewards = {"accuracy": (1.0, accuracy)}
    rewards |= {name: (1.0, reward) for name, reward in known.items()}
    rows = [completion(tokens=tokens) for tokens in (1, 2, 3)]
    table = scoring.score(rows, rewards)
    assert table.names[0] == "accuracy" and batches == [3]
    again = scoring.score(rows[:2], rewards)
    assert batches == [3, 2] and again.values[0, 0] == 1.0
    assert inspect.getdoc(accuracy) == "Slow."
    accuracy(rows)[0] = 5.0
    assert accuracy(rows) == [1.0, None, 0.0]
    # Equal rows are not the same rows: they may differ in what does not compare.
    accuracy([completion(tokens=tokens) for tokens in (1, 2, 3)])
    assert batches == [3, 2, 3, 3]
    assert accuracy([]) == []


def test_a_check_that_raises_is_tried_again():
    @once
    def fails(completions):
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):
            fails([completion()])


def test_the_docs_have_every_reward():
    names = set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE))
    assert names >= builtin_rewards(given([]), RewardConfig(), 1).keys()
