"""Which groups a step rolls out, and which of them it trains on."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import PromptStream
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.tasks.base import Task
from grpo_jax.trainer import collection, run
from grpo_jax.trainer.batch import advantages_of
from grpo_jax.trainer.position import Position
from grpo_jax.trainer.stages import Stages

# Accuracy of the two completions of a prompt, by what its id leaves when divided by 4;
# "style" is always 0 and 1: another reward that differs within every group.
ACCURACY = {0: [1.0, 0.0], 1: [1.0, 1.0], 2: [0.0, 0.0], 3: [1.0, None]}
PROMPTS = 40
SEED = 1  # of a first batch of which one group teaches


def task(config: c.TaskConfig) -> Task:
    examples = [
        Example(id=i, question=f"{i}?", reference="", columns={"id": i})
        for i in range(PROMPTS)
    ]
    return Task("numbers", examples, [], [], {"accuracy": accuracy})


def accuracy(completions):
    seen = {}
    for each in completions:
        place = seen.setdefault(each.group, [])
        place.append(ACCURACY[each.columns["id"] % 4][len(place)])
    return [value for group in seen.values() for value in group]


def style(completions):
    return [float(row % 2) for row in range(len(completions))]


def config_of(zero_variance="refill", **fields):
    return c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="characters", dtype=choices.Dtype.FLOAT32),
        task=c.TaskConfig(name=f"{__name__}:task"),
        rollout=c.RolloutConfig(
            prompts_per_step=4,
            group_size=2,
            max_prompt_tokens=8,
            max_completion_tokens=4,
            zero_variance=choices.ZeroVariance(zero_variance),
            **fields,
        ),
        reward=c.RewardConfig(weights={"accuracy": 1.0, f"{__name__}:style": 0.5}),
    ).seal()


@pytest.fixture(scope="module")
def built():
    config = config_of()
    with contextlib.closing(run.build(config)) as built, jax.set_mesh(built.model.mesh):
        yield built, built.model.initial_params()


@pytest.fixture
def collect(built):
    """Collects a step; also returns the ids of the prompts that were drawn."""

    def collect(config, position=None):
        position = position or position_of(config)
        changed = dataclasses.replace(built[0], config=config)
        collected = collection.collect(changed, built[1], position, 1)
        return collected, [prompt.example.id for prompt in collected.groups.prompts]

    return collect


def position_of(config):
    stream = PromptStream(
        task(config.task).train,
        load_tokenizer("characters"),
        prompts_per_step=4,
        seed=SEED,
        max_prompt_tokens=8,
    )
    return Position(stream, Stages(config.rollout), None)


def trained_ids(collected):
    """Ids of the groups of the update, each row of which must be in its place."""
    groups = [collected.groups.completions[row].group for row in collected.rows]
    assert groups[::2] == groups[1::2]
    return [collected.groups.prompts[group].example.id for group in groups[::2]]


def test_kept_groups_are_what_was_drawn(collect):
    collected, drawn = collect(config_of("keep"))
    assert len(drawn) == 4 and trained_ids(collected) == drawn
    np.testing.assert_array_equal(collected.rows, np.arange(8))
    np.testing.assert_array_equal(collected.totals, collected.groups.rewards.totals)
    assert collected.stats.sampled_tokens > 8


def test_dropped_groups_have_no_reward_and_so_no_part_in_the_loss(collect):
    config = config_of("drop")
    collected, drawn = collect(config)
    assert len(drawn) == 4 and trained_ids(collected) == drawn
    teaches = np.array([each % 4 == 0 for each in drawn])
    assert teaches.any() and not teaches.all()
    silent = np.isnan(collected.totals).reshape(4, 2)
    np.testing.assert_array_equal(silent, np.repeat(~teaches[:, None], 2, axis=1))
    advantages = advantages_of(collected.totals, config).reshape(4, 2)
    np.testing.assert_array_equal((advantages != 0).all(axis=1), teaches)


def test_refilled_steps_hold_groups_that_teach_each_once(collect):
    collected, drawn = collect(config_of(max_refills=9.0))
    assert len(drawn) > 4 and len(drawn) == len(set(drawn))
    # The first four that teach, in the order in which they were drawn.
    assert trained_ids(collected) == [each for each in drawn if each % 4 == 0][:4]
    assert not np.isnan(collected.totals).any()
    completions = collected.groups.completions
    groups = np.repeat(np.arange(len(drawn)), 2).tolist()
    assert [each.group for each in completions] == groups
    assert [each.columns["id"] for each in completions[::2]] == drawn
    texts = {each.text for each in completions}
    assert len(texts) > len(drawn)  # no round repeats another


@pytest.mark.parametrize("max_refills", [0.0, 0.5, 2.5])
def test_refills_end_where_they_must(collect, monkeypatch, max_refills):
    monkeypatch.setitem(ACCURACY, 0, [1.0, 1.0])  # no group teaches
    config = config_of(max_refills=max_refills)
    collected, drawn = collect(config)
    assert len(drawn) == 4 + 4 * max_refills
    assert np.isnan(collected.totals).all() and len(collected.rows) == 8
    np.testing.assert_array_equal(advantages_of(collected.totals, config), 0)


def test_few_prompts_are_not_drawn_twice_in_a_step(collect, monkeypatch):
    monkeypatch.setitem(ACCURACY, 0, [1.0, 1.0])
    monkeypatch.setattr(f"{__name__}.PROMPTS", 6)
    _, drawn = collect(config_of(max_refills=9.0))
    assert len(drawn) == len(set(drawn)) <= 6


def test_the_next_step_goes_on_after_what_was_drawn(collect):
    config = config_of(max_refills=2.0)
    position = position_of(config)
    first = collect(config, position)[1]
    state = position.get_state()
    second = collect(config, position)[1]
    assert not set(first) & set(second[:4])
    resumed = position_of(config)
    resumed.set_state(state)
    assert collect(config, resumed)[1] == second


def test_completions_end_at_the_limit_of_the_stage(collect):
    stages = c.RolloutConfig().stages
    stages.initial_tokens, stages.every_steps = 2, 1
    collected, _ = collect(config_of("keep", stages=stages))
    assert max(each.num_tokens for each in collected.groups.completions) == 2
    assert {each.max_tokens for each in collected.groups.completions} == {2}


def test_a_run_has_stalled_when_the_best_is_long_ago():
    position = position_of(config_of())
    for values, patience, stalled in [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),  # no better is no rise
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5, 0.4, 0.4], 2, True),
        ([0.5, 0.4, 0.4], 3, False),
        ([0.5, 0.4, 0.4], 0, False),
    ]:
        position.validations = values
        assert position.stalled(patience) is stalled


def test_a_run_has_spent_its_tokens():
    position = position_of(config_of())
    for written, most, spent in [
        (0, 0, False),
        (9, 0, False),  # no limit
        (9, 10, False),
        (10, 10, True),
        (11, 10, True),
    ]:
        position.generated_tokens = written
        assert position.spent(most) is spent
