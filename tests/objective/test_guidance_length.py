import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import GuidanceLength, OnZero, Tie
from grpo_jax.objective.guidance_length import (
    LengthRule,
    advance,
    from_numbers,
    start,
    to_numbers,
)
from tests.objective.lengths import (
    ADDITIVE,
    CYCLE,
    MULTIPLICATIVE,
    NAN,
    SCHEDULES,
    jitted,
    trace,
)

P = (0.25, 0.5, 0.375, 0.375, 0.75, 0.5)
Q = (0.5,) * 4
Z = (0, 0, 0.125, 0.25, 0.0625, 0.5)
CONSTANTS = (0.1, 0.35, 0.7, 0.85, 0.99)


def rule(kind, initial, minimum=1, maximum=3072, **options):
    return LengthRule(
        kind=kind, initial=initial, minimum=minimum, maximum=maximum, **options
    )


RULES = {
    "additive": (
        rule(ADDITIVE, 512, 0, 4096, window=3, delta=64),
        P,
        [512, 576, 512, 576, 640, 576, 640],
    ),
    "additive, ties": (
        rule(ADDITIVE, 300, 0, 4096, window=2, delta=100),
        Q,
        [300, 400, 500, 600, 700],
    ),
    "additive, ties hold": (
        rule(ADDITIVE, 300, 0, 4096, window=2, delta=100, tie=Tie.HOLD),
        (0.5, 0.5, 0.25, 0.25),
        [300, 300, 300, 400, 400],
    ),
    "additive, ties decrease": (
        rule(ADDITIVE, 300, 0, 4096, window=2, delta=100, tie=Tie.DECREASE),
        (0.5, 0.5, 0.25, 0.25),
        [300, 200, 100, 200, 100],
    ),
    "additive from zero rewards": (
        rule(ADDITIVE, 256, 0, 1024, window=2, delta=256),
        Z,
        [256, 512, 768, 512, 256, 512, 256],
    ),
    "additive at its bounds": (
        rule(ADDITIVE, 700, 0, 1024, window=2, delta=400),
        (0.125, 0.25, 0.375, 0.5),
        [700, 1024, 624, 224, 0],
    ),
    "additive, ties that float32 rounds": (
        rule(ADDITIVE, 100, 0, 4096, window=3, delta=50),
        (0.7,) * 4,
        [100, 150, 200, 250, 300],
    ),
    "additive, an average that float32 rounds": (
        rule(ADDITIVE, 100, 0, 4096, window=3, delta=50),
        (0.1, 0.3, 0.2, 0.7, 0.9, 0.8),
        [100, 150, 100, 150, 100, 50, 100],
    ),
    "additive, nothing to compare": (
        rule(ADDITIVE, 100, 0, 4096, window=1, delta=50),
        (0.25, 0.5, 0.75),
        [100, 150, 200, 250],
    ),
    "multiplicative": (
        rule(MULTIPLICATIVE, 1024),
        P,
        [1024, 1024, 512, 512, 597, 298, 335],
    ),
    "multiplicative, no change": (rule(MULTIPLICATIVE, 300), Q, [300] * 5),
    "multiplicative, zero holds": (
        rule(MULTIPLICATIVE, 256, 1, 1024),
        Z,
        [256, 256, 256, 256, 64, 192, 60],
    ),
    "multiplicative, zero goes to the maximum": (
        rule(MULTIPLICATIVE, 256, 1, 1024, on_zero=OnZero.INCREASE),
        (0, 0, 0.5, 0.25, 0),
        [256, 256, 1024, 1024, 1024, 1024],
    ),
    "multiplicative, zero increases by the cap": (
        rule(MULTIPLICATIVE, 100, 1, 1024, on_zero=OnZero.INCREASE, max_ratio=1.5),
        (0, 0, 0, 0.5, 0.25),
        [100, 100, 150, 225, 225, 225],
    ),
    "multiplicative, capped": (
        rule(MULTIPLICATIVE, 400, 1, 3072, max_ratio=2.0),
        (0.125, 1, 0.125, 0.5, 0.25),
        [400, 400, 200, 400, 450, 562],
    ),
    "multiplicative, a window of 3": (
        rule(MULTIPLICATIVE, 1000, window=3),
        (0.5, 0.25, 0.75, 0.5, 0.125),
        [1000, 1000, 2000, 1000, 1000, 3072],
    ),
    "multiplicative, almost nothing": (
        rule(MULTIPLICATIVE, 1024),
        (0.5, 1e-30),
        [1024, 1024, 3072],
    ),
    "literal": (
        rule(MULTIPLICATIVE, 1024, literal=True),
        P,
        [1024, 1024, 2048, 2048, 1755, 3072, 2730],
    ),
    "cycle": (rule(CYCLE, 1024), P, [1024] * 6 + [1152]),
    "cycle from its maximum": (
        rule(CYCLE, 3072),
        (0.25, 0.75, 1, 0.5, 0.5, 0.25, 0.375, 0.375, 0.375),
        [3072] * 3 + [1536] * 3 + [3072] * 4,
    ),
    "cycle, zero holds": (
        rule(CYCLE, 3072),
        (0, 0, 0.5, 0.5, 0.5, 0, 0.25, 0.5, 0.75),
        [3072] * 9 + [1536],
    ),
    "cycle, zero increases": (
        rule(CYCLE, 512, on_zero=OnZero.INCREASE, max_ratio=2.0),
        (0.5, 0.5, 0, 0.5, 0, 0.5),
        [512] * 3 + [1024] * 3 + [512],
    ),
    "linear to zero": (
        rule(GuidanceLength.LINEAR, 3072, total_steps=5),
        (0.5,) * 5,
        [3072, 2304, 1536, 768, 0, 0],
    ),
    "linear": (
        rule(GuidanceLength.LINEAR, 100, final=10, total_steps=4),
        (NAN, 0.5, 0),
        [100, 70, 40, 10],
    ),
    "linear, one step": (
        rule(GuidanceLength.LINEAR, 100, final=10),
        (0.5,),
        [10, 10],
    ),
    "concave": (
        rule(GuidanceLength.CONCAVE, 110, final=10, total_steps=5),
        (0.5,) * 4,
        [110, 96, 80, 60, 10],
    ),
    "concave, a straight line": (
        rule(GuidanceLength.CONCAVE, 100, total_steps=5, power=1.0),
        (0.5,) * 4,
        [100, 75, 50, 25, 0],
    ),
    "stepwise": (
        rule(GuidanceLength.STEPWISE, 100, final=20, interval=2),
        (0.5,) * 7,
        [100, 100, 50, 50, 25, 25, 20, 20],
    ),
    "cosine": (
        rule(GuidanceLength.COSINE, 100, final=20, total_steps=5),
        (0.5,) * 5,
        [100, 88, 60, 31, 20, 20],
    ),
    "fixed": (rule(GuidanceLength.FIXED, 77), (0, NAN, 1), [77] * 4),
}
CASES = pytest.mark.parametrize("name", RULES)
FOLLOWS_REWARDS = pytest.mark.parametrize(
    "name", [name for name, case in RULES.items() if case[0].kind not in SCHEDULES]
)


@CASES
@pytest.mark.parametrize("step", [advance, jitted], ids=["eager", "jitted"])
def test_traces(name, step):
    a_rule, rewards, expected = RULES[name]
    assert trace(a_rule, rewards, step) == expected


@CASES
def test_resumes_at_any_step_from_plain_numbers(name):
    a_rule, rewards, expected = RULES[name]
    state = start(a_rule)
    for index, reward in enumerate(rewards):
        state = from_numbers(json.loads(json.dumps(to_numbers(state))))
        assert trace(a_rule, rewards[index:], state=state) == expected[index:]
        state = advance(a_rule, state, jnp.float32(reward))


def test_numbers_lose_nothing():
    a_rule = rule(ADDITIVE, 100, window=3)
    state = advance(a_rule, advance(a_rule, start(a_rule), 0.1), 1 / 3)
    numbers = to_numbers(state)
    assert (numbers["length"], numbers["count"]) == (int(state.length), 2)
    back = from_numbers(json.loads(json.dumps(numbers)))
    for actual, expected in zip(
        jax.tree.leaves(back), jax.tree.leaves(state), strict=True
    ):
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


@FOLLOWS_REWARDS
def test_a_step_without_a_reward_is_as_if_it_had_not_been(name):
    a_rule, rewards, _ = RULES[name]
    present = [reward for reward in rewards if not math.isnan(reward)]
    doubled = [each for reward in present for each in (NAN, reward)]
    lengths = trace(a_rule, doubled)
    assert lengths[::2] == trace(a_rule, present)
    assert lengths[1::2] == lengths[:-1:2]


@pytest.mark.parametrize("window", [2, 3, 5])
def test_additive_compares_with_the_rewards_before(window):
    rewards = np.random.default_rng(window).random(60).astype(np.float32)
    a_rule = rule(ADDITIVE, 10_000, 0, 20_000, window=window, delta=1)
    changes = np.diff(trace(a_rule, rewards))
    for index in range(1, len(rewards)):
        before = rewards[max(index - window + 1, 0) : index].astype(np.float64)
        assert changes[index] == (-1 if rewards[index] > before.mean() else 1)


@pytest.mark.parametrize("window", [3, 5, 6, 7])
@pytest.mark.parametrize("reward", CONSTANTS)
def test_equal_rewards_are_ties_though_their_float_mean_is_not(reward, window):
    a_rule = rule(ADDITIVE, 100, window=window, delta=50, tie=Tie.HOLD)
    assert trace(a_rule, [reward] * 12, jitted) == [100] * 13


@pytest.mark.parametrize("kind", [MULTIPLICATIVE, CYCLE])
def test_scale_of_rewards_does_not_matter(kind):
    rewards = np.random.default_rng(0).uniform(0.2, 0.9, 30).astype(np.float32)
    a_rule = rule(kind, 1024, 16, 100_000, window=3)
    expected = trace(a_rule, rewards)
    assert len(set(expected)) > 5
    assert trace(a_rule, rewards * 8) == expected
    state = start(a_rule)
    other = start(a_rule)
    for reward in rewards:
        # From the same length each time: one lost token would be multiplied on.
        other = other.replace(length=state.length)
        state = advance(a_rule, state, reward.item())
        other = advance(a_rule, other, reward.item() * 0.3)
        assert abs(int(state.length) - int(other.length)) <= 1


@pytest.mark.parametrize("on_zero", OnZero)
@pytest.mark.parametrize("max_ratio", [0.0, 1.5])
@pytest.mark.parametrize("kind", [ADDITIVE, MULTIPLICATIVE, CYCLE])
def test_a_larger_reward_never_gives_a_longer_length(kind, max_ratio, on_zero):
    a_rule = rule(kind, 700, 16, 2048, max_ratio=max_ratio, on_zero=on_zero)
    history = advance(a_rule, advance(a_rule, start(a_rule), 0.25), 0.5)
    rewards = [0.0, 1e-30, 0.01, 0.3, 0.375, 0.5, 0.9]
    if on_zero is OnZero.HOLD:
        del rewards[0]
    following = [int(advance(a_rule, history, reward).length) for reward in rewards]
    assert following == sorted(following, reverse=True)
    assert following[0] > following[-1]


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("on_zero", OnZero)
@pytest.mark.parametrize("kind", GuidanceLength)
def test_lengths_are_whole_and_in_bounds(kind, on_zero, literal):
    rng = np.random.default_rng(1)
    rewards = np.where(rng.random(40) < 0.3, 0, rng.random(40) * 3)
    rewards[[7, 20]] = NAN
    rewards[30] = -1
    a_rule = rule(
        kind,
        300,
        20,
        900,
        final=20,
        total_steps=30,
        on_zero=on_zero,
        literal=literal,
        delta=200,
    )
    state = start(a_rule)
    lengths = {int(state.length)}
    for reward in rewards:
        state = jitted(a_rule, state, jnp.float32(reward))
        assert state.length.dtype == state.count.dtype == jnp.int32
        assert np.all(np.isfinite(state.rewards))
        lengths.add(int(state.length))
    assert min(lengths) >= 20 and max(lengths) <= 900
    assert len(lengths) > 2 or kind is GuidanceLength.FIXED


@pytest.mark.parametrize("length", [1, 7, 1023, 99_999])
@pytest.mark.parametrize("reward", [0.1, 0.3, 0.7, 1 / 3, 0.9999])
def test_a_ratio_of_one_loses_no_token(length, reward):
    a_rule = rule(MULTIPLICATIVE, length, 1, 100_000, window=7)
    assert trace(a_rule, [reward] * 9, jitted) == [length] * 10


def test_second_call_does_not_recompile():
    traces = []

    @jax.jit
    def compute(state, reward):
        traces.append(1)
        return advance(rule(ADDITIVE, 100), state, reward)

    compute(compute(start(rule(ADDITIVE, 100)), jnp.float32(0.5)), jnp.float32(NAN))
    assert len(traces) == 1
