"""What guided groups start from, and how the length answers to what they earn."""

import dataclasses
import json
import math

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer.guidance import Guide

TOKENIZER = load_tokenizer("characters")
GROUP, STEPS, LIMIT = 4, 10, 48
TRACE = "<think>7-8=9;9+3=2</think><answer>2</answer>"


def guide_of(group_size=GROUP, **changes) -> Guide:
    usual = dict(
        fraction=0.5, length=choices.GuidanceLength.FIXED, initial=6, maximum=64
    )
    config = c.TrainConfig(
        rollout=c.RolloutConfig(group_size=group_size, max_completion_tokens=LIMIT),
        guidance=c.GuidanceConfig(**{**usual, **changes}),
        trainer=c.TrainerConfig(steps=STEPS),
    )
    return Guide(config, TOKENIZER, TOKENIZER.vocab_size)


def prompts_of(*solutions, prompt="7-8+3?"):
    return [
        EncodedPrompt(
            Example(id=10 * index, question=prompt, reference="2", solution=solution),
            prompt,
            TOKENIZER.encode(prompt),
        )
        for index, solution in enumerate(solutions)
    ]


def said(given, row):
    return TOKENIZER.decode(given.prefixes[row, : given.counts[row]].tolist())


def observe(guide, prompts, given, accuracy):
    rows = len(prompts) * GROUP
    values = np.asarray(accuracy, float).reshape(rows)
    table = RewardTable(("accuracy",), values[:, None], values)
    zeros = np.zeros((rows, 60), np.float32)
    lengths = np.full(rows, 50, np.int32)
    trajectories = Trajectories(
        tokens=zeros.astype(np.int32),
        origins=np.full(zeros.shape, Origin.SAMPLED, np.uint8),
        behavior_log_probs=zeros,
        kept_log_mass=zeros,
        prompt_lengths=np.full(rows, 6, np.int32),
        lengths=lengths,
        finished=np.ones(rows, bool),
    )
    return guide.observe(prompts, given, table, trajectories)


def test_the_first_rows_of_every_group_start_with_the_trace():
    given = guide_of().give(prompts_of(TRACE, TRACE[7:]), 1, LIMIT)
    tokens = TOKENIZER.encode(TRACE)[:6]
    assert given.counts.tolist() == [6, 6, 0, 0] * 2
    assert given.prefixes[0, :6].tolist() == tokens
    assert said(given, 0) == said(given, 1) and TRACE.startswith(said(given, 0))
    assert said(given, 4) == "7-8=9;"


@pytest.mark.parametrize("initial", [20, 40, 64])
def test_the_answer_is_never_given(initial):
    given = guide_of(initial=initial, max_trace_fraction=1.0).give(
        prompts_of(TRACE, "so 2 = \\boxed{2}"), 1, LIMIT
    )
    assert said(given, 0) == TRACE.partition("</think>")[0]
    assert said(given, 4) == "so 2 = "
    assert [trace.length for trace in given.traces] == [
        len(TOKENIZER.encode(text)) for text in (TRACE, "so 2 = \\boxed{2}")
    ]


def test_a_share_of_the_trace_and_the_completion_limit_bound_it():
    whole = "1" * 60
    given = guide_of(initial=64, max_trace_fraction=0.5).give(
        prompts_of(whole), 1, LIMIT
    )
    assert given.counts[0] == 30
    given = guide_of(initial=64, max_trace_fraction=1.0).give(
        prompts_of(whole), 1, LIMIT
    )
    assert given.counts[0] == 47  # one of 48 is left to be generated


def test_prompts_without_a_trace_are_not_guided_and_are_counted():
    guide, prompts = guide_of(), prompts_of(TRACE, "")
    given = guide.give(prompts, 1, LIMIT)
    assert given.counts.tolist() == [6, 6, 0, 0, 0, 0, 0, 0]
    metrics = observe(guide, prompts, given, [1, 0, 0, 0, 1, 1, 1, 1])
    assert metrics["guidance/no_trace_fraction"] == 0.5
    assert metrics["guidance/guided_fraction"] == 0.25


@pytest.mark.parametrize(
    ("prompt", "solution", "expected"),
    [
        ("?", "7-8=9;9+3", "<think>\n7-8"),
        ("?", TRACE, "<think>7-8=9"),
        ("?<think>", TRACE, "7-8=9;9+3=2"),
        ("?<think>\n", "7-8=9;9+3", "7-8=9;9"),
    ],
)
def test_thinking_is_opened_once(prompt, solution, expected):
    guide = guide_of(initial=12, open_thinking=True)
    given = guide.give(prompts_of(solution, prompt=prompt), 1, LIMIT)
    text = guide._tokenizer.decode(given.traces[0].tokens)
    assert text.startswith(expected.replace("\n", "")) or text.startswith(expected)


def test_metrics_say_who_earned_what():
    guide, prompts = guide_of(), prompts_of(TRACE, TRACE)
    given = guide.give(prompts, 1, LIMIT)
    # Of .1s, whose standard deviation is not 0 once it is rounded.
    metrics = observe(guide, prompts, given, [1, 1, 0.1, 0.1, 1, 0, 1, 0])
    tokens = len(TOKENIZER.encode(TRACE))
    expected = {
        "guidance/length": 6,
        "guidance/signal": 0.3,
        "guidance/reward_guided": 0.75,
        "guidance/reward_unguided": 0.3,
        "guidance/reward_gap": 0.45,
        # The unguided rows of the first group agree, all four do not.
        "guidance/rescued_fraction": 0.5,
        "guidance/given_tokens_mean": 6,
        "guidance/generated_tokens_mean": 50 - 6 - 6,
        "guidance/trace_share": 6 / tokens,
        "guidance/exhausted_fraction": 0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_an_adaptive_length_follows_the_chosen_rows():
    options = dict(length=choices.GuidanceLength.ADDITIVE, minimum=0, delta=2, window=2)
    prompts = prompts_of(TRACE)
    for rows, lengths in (("unguided", [6, 8, 6]), ("all", [6, 8, 10])):
        guide = guide_of(signal_rows=choices.SignalRows(rows), **options)
        seen = []
        for step, accuracy in enumerate(([1, 1, 0, 0], [0, 0, 1, 0], [0] * 4)):
            given = guide.give(prompts, step + 1, LIMIT)
            seen.append(given.length)
            observe(guide, prompts, given, accuracy)
        assert seen == lengths, rows


def test_a_prompt_that_is_often_solved_gets_less():
    guide = guide_of(initial=8, per_prompt=True)
    prompts = prompts_of(TRACE, TRACE)
    given = guide.give(prompts, 1, LIMIT)
    assert given.counts.tolist() == [8, 8, 0, 0] * 2
    observe(guide, prompts, given, [0, 0, 1, 0, 0, 0, 1, 1])
    assert guide.give(prompts, 2, LIMIT).counts.tolist() == [4, 4, 0, 0, 0, 0, 0, 0]


def test_guidance_may_end_before_the_run():
    guide, prompts = guide_of(initial=8, anneal_fraction=0.5), prompts_of(TRACE)
    lengths = [guide.give(prompts, step, LIMIT).length for step in range(1, STEPS + 1)]
    assert lengths[:5] == [8] * 5 and lengths[-1] == 0
    assert lengths == sorted(lengths, reverse=True)


def test_a_guide_goes_on_where_another_stopped():
    options = dict(
        length=choices.GuidanceLength.MULTIPLICATIVE, minimum=1, per_prompt=True
    )
    prompts, rewards = prompts_of(TRACE), np.random.default_rng(0).random((6, GROUP))
    whole, seen, resumed = guide_of(**options), [], []
    for step, accuracy in enumerate(rewards):
        if step == 3:
            state = json.loads(json.dumps(whole.get_state()))
        given = whole.give(prompts, step + 1, LIMIT)
        seen.append(given.counts.tolist())
        observe(whole, prompts, given, accuracy)
    again = guide_of(**options)
    again.set_state(state)
    for step in range(3, 6):
        given = again.give(prompts, step + 1, LIMIT)
        resumed.append(given.counts.tolist())
        observe(again, prompts, given, rewards[step])
    assert resumed == seen[3:] and len({tuple(each) for each in seen}) > 2


def test_rows_without_a_reward_do_not_move_the_length():
    guide = guide_of(length=choices.GuidanceLength.ADDITIVE, minimum=0)
    prompts = prompts_of(TRACE)
    metrics = observe(
        guide, prompts, guide.give(prompts, 1, LIMIT), [1, 1, math.nan, math.nan]
    )
    assert math.isnan(metrics["guidance/signal"]) and int(guide.state.length) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fraction": 1.0, "length": choices.GuidanceLength.ADDITIVE, "minimum": 0},
            "no row of a group of 4 is left unguided",
        ),
        (
            {"length": choices.GuidanceLength.ADDITIVE, "minimum": 8},
            r"config.guidance.initial is 6: additive needs it from 8 to 64",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        guide_of(**changes)


def test_the_signal_must_be_a_reward_of_the_run():
    config = c.TrainConfig(policy=c.PolicyConfig(tokenizer="characters"))
    config = dataclasses.replace(
        config, guidance=c.GuidanceConfig(fraction=0.5, signal_reward="brevity")
    )
    with pytest.raises(ValueError, match="signal_reward is 'brevity': use one of"):
        config.seal()
