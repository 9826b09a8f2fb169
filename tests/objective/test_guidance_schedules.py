"""Schedules of the guidance length, and what its rules refuse."""

import pytest

from grpo_jax.choices import GuidanceLength
from grpo_jax.objective.guidance_length import LengthRule
from tests.objective.lengths import (
    ADDITIVE,
    CYCLE,
    MULTIPLICATIVE,
    NAN,
    SCHEDULES,
    jitted,
    trace,
)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_fall_from_initial_to_final(kind):
    a_rule = LengthRule(kind, 3000, final=30, total_steps=50, interval=7)
    lengths = trace(a_rule, [0.5] * 60, jitted)
    assert lengths[0] == 3000
    assert lengths[49:] == [30] * 12
    assert lengths == sorted(lengths, reverse=True)
    # A float of 2970 / 49 that was rounded down would lose a token where 7 cancels.
    if kind is GuidanceLength.LINEAR:
        assert lengths[:50] == [30 + 2970 * left // 49 for left in range(49, -1, -1)]


def test_rewards_change_no_schedule():
    for kind in (*SCHEDULES, GuidanceLength.FIXED):
        a_rule = LengthRule(kind, 100, total_steps=8)
        seen = trace(a_rule, [0.1, NAN, 0.9, 0, 1], jitted)
        assert seen == trace(a_rule, [NAN] * 5, jitted)


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
