"""Schedules of the guidance length, and what its rules refuse."""

import math

import jax
import jax.numpy as jnp
import pytest

from grpo_jax.choices import GuidanceLength
from grpo_jax.objective.guidance_length import LengthRule, advance, start

NAN = math.nan
ADDITIVE, MULTIPLICATIVE, CYCLE = (
    GuidanceLength.ADDITIVE,
    GuidanceLength.MULTIPLICATIVE,
    GuidanceLength.CYCLE,
)
SCHEDULES = (
    GuidanceLength.LINEAR,
    GuidanceLength.CONCAVE,
    GuidanceLength.STEPWISE,
    GuidanceLength.COSINE,
)

jitted = jax.jit(advance, static_argnums=0)


def trace(a_rule, rewards):
    state = start(a_rule)
    lengths = [int(state.length)]
    for reward in rewards:
        state = jitted(a_rule, state, jnp.float32(reward))
        lengths.append(int(state.length))
    return lengths


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_fall_from_initial_to_final(kind):
    a_rule = LengthRule(kind, 3000, final=30, total_steps=50, interval=7)
    lengths = trace(a_rule, [0.5] * 60)
    assert lengths[0] == 3000
    assert lengths[49:] == [30] * 12
    assert lengths == sorted(lengths, reverse=True)
    # A float of 2970 / 49 that was rounded down would lose a token where 7 cancels.
    if kind is GuidanceLength.LINEAR:
        assert lengths[:50] == [30 + 2970 * left // 49 for left in range(49, -1, -1)]


def test_rewards_change_no_schedule():
    for kind in (*SCHEDULES, GuidanceLength.FIXED):
        a_rule = LengthRule(kind, 100, total_steps=8)
        assert trace(a_rule, [0.1, NAN, 0.9, 0, 1]) == trace(a_rule, [NAN] * 5)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ADDITIVE, {"initial": -1}, "initial is -1: additive needs it at least 0"),
        (ADDITIVE, {"initial": 5, "minimum": 6}, "initial is 5: .* from 6 to 3072"),
        (ADDITIVE, {"initial": 5, "minimum": -1}, "minimum is -1"),
        (CYCLE, {"initial": 5, "minimum": 0}, "minimum is 0: cycle needs it at least"),
        (ADDITIVE, {"initial": 5, "window": 0}, "window is 0"),
        (ADDITIVE, {"initial": 5, "delta": -1}, "delta is -1"),
        (MULTIPLICATIVE, {"initial": 5, "max_ratio": 0.5}, "max_ratio is 0.5"),
        (GuidanceLength.LINEAR, {"initial": 5, "final": 6}, "final is 6"),
        (GuidanceLength.LINEAR, {"initial": 5, "total_steps": 0}, "total_steps is 0"),
        (GuidanceLength.CONCAVE, {"initial": 5, "power": 2.0}, "power is 2"),
        (GuidanceLength.STEPWISE, {"initial": 5, "factor": 0.0}, "factor is 0"),
        (GuidanceLength.STEPWISE, {"initial": 5, "interval": 0}, "interval is 0"),
    ],
)
def test_values_out_of_range_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        LengthRule(kind=kind, **options)
