"""How many tokens of guidance the next step gives: schedules, and rules that adapt.

One pure state machine: `start` gives the length of the first step, `advance` takes in
the reward of a step and gives that of the next. The state has one shape for all rules
and does not need jit, so that every host and every resumed run arrives at one length.
"""

# jax leaves parts of its own signatures untyped:
# pyright: reportUnknownMemberType=false

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from grpo_jax.choices import GuidanceLength, OnZero, Tie
from grpo_jax.objective.guidance import whole_tokens

# Rewards that differ by this part of the largest of them are equal: 16 roundings.
_TIE = 1e-6
# The released program compares every third reward with the two before it.
_CYCLE_STEPS = 3

SCHEDULES = (
    GuidanceLength.LINEAR,
    GuidanceLength.CONCAVE,
    GuidanceLength.STEPWISE,
    GuidanceLength.COSINE,
)
_RATIOS = (GuidanceLength.MULTIPLICATIVE, GuidanceLength.CYCLE)


@dataclasses.dataclass(frozen=True)
class LengthRule:
    """How the guidance length moves. All lengths are tokens.

    Attributes:
      kind: the rule.
      initial: length of the first step.
      minimum: lower bound of the rules that follow rewards; at least 1 for those that
        multiply, which never leave 0.
      maximum: their upper bound.
      final: where schedules end, at most `initial`.
      total_steps: steps until they do. Not used by STEPWISE.
      power: exponent of CONCAVE, from 0 to 1.
      factor: what STEPWISE multiplies by, from 0 to 1.
      interval: steps between its changes.
      window: rewards that ADDITIVE and MULTIPLICATIVE average over.
      delta: tokens that ADDITIVE adds or takes away.
      tie: what ADDITIVE does where the reward equals the average.
      on_zero: what MULTIPLICATIVE and CYCLE do at a reward of 0 or below.
      max_ratio: most they multiply or divide by in one step, above 1; 0 is no limit.
      literal: whether MULTIPLICATIVE moves as the paper prints it, with the reward.
    """

    kind: GuidanceLength
    initial: int
    minimum: int = 1
    maximum: int = 3072
    final: int = 0
    total_steps: int = 1
    power: float = 0.5
    factor: float = 0.5
    interval: int = 1
    window: int = 2
    delta: int = 64
    tie: Tie = Tie.INCREASE
    on_zero: OnZero = OnZero.HOLD
    max_ratio: float = 0.0
    literal: bool = False

    def __post_init__(self):
        """Checks the fields that the rule uses.

        Raises:
          ValueError: a field is out of its range.
        """
        _check(self, "initial", self.initial >= 0, "at least 0")
        if self.kind in SCHEDULES:
            self._check_schedule()
        elif self.kind is not GuidanceLength.FIXED:
            self._check_adaptive()

    def _check_schedule(self):
        _check(self, "final", 0 <= self.final <= self.initial, "from 0 to initial")
        _check(self, "total_steps", self.total_steps >= 1, "at least 1")
        _check(self, "power", 0 < self.power <= 1, "above 0 and at most 1")
        _check(self, "factor", 0 < self.factor <= 1, "above 0 and at most 1")
        _check(self, "interval", self.interval >= 1, "at least 1")

    def _check_adaptive(self):
        lowest = int(self.kind in _RATIOS)
        _check(self, "minimum", self.minimum >= lowest, f"at least {lowest}")
        inside = self.minimum <= self.initial <= self.maximum
        _check(self, "initial", inside, f"from {self.minimum} to {self.maximum}")
        _check(self, "window", self.window >= 1, "at least 1")
        _check(self, "delta", self.delta >= 0, "at least 0")
        capped = self.max_ratio == 0 or self.max_ratio > 1
        _check(self, "max_ratio", capped, "above 1, or 0 for no limit")


def _check(rule: LengthRule, field: str, holds: bool, wanted: str):
    if not holds:
        value = getattr(rule, field)
        raise ValueError(f"{field} is {value}: {rule.kind.value} needs it {wanted}")


class LengthState(struct.PyTreeNode):
    """Where a rule stands.

    Attributes:
      length: tokens of guidance in the current step, int32.
      rewards: the latest rewards, newest first, float32; 0 where there was none yet.
      count: rewards taken in so far, int32; of schedules, steps.
    """

    length: Int[Array, ""]
    rewards: Float[Array, " window"]
    count: Int[Array, ""]


def start(rule: LengthRule) -> LengthState:
    """Returns the state of the first step."""
    count = jnp.int32(0)
    return LengthState(
        length=_scheduled(rule, count),
        rewards=jnp.zeros(max(rule.window, _CYCLE_STEPS - 1), jnp.float32),
        count=count,
    )


def advance(
    rule: LengthRule, state: LengthState, reward: Float[Array, ""] | float
) -> LengthState:
    """Computes the state of the next step from the reward of this one.

    With r the reward, l the length and averages over rewards up to now:

        ADDITIVE         l - delta where r > mean of the last `window`, r included,
                         else l + delta
        MULTIPLICATIVE   l * (mean of the last `window` before r) / r
        CYCLE            the same with the last two, at every third reward only
        LINEAR           from initial to final in a straight line
        CONCAVE          final + (initial - final) q^power, q from 1 to 0
        COSINE           final + (initial - final) (1 - cos(pi q)) / 2
        STEPWISE         initial * factor^floor(steps / interval), not below final

    in whole tokens, and within the bounds. The first reward has nothing to be compared
    with: ADDITIVE takes it for a tie, the others hold. A rise from rewards of 0 holds.

    Args:
      rule: static under jit.
      state: from `start` or the last call.
      reward: from `guidance.signal`. NaN, no row to measure, holds the length and is
        not remembered; schedules go on.

    Returns:
      The new state.

    Source: G2RPO-A (arXiv 2508.13023). MULTIPLICATIVE is the printed rule with its
    ratio inverted, so that a rising reward shortens guidance, as the authors say and as
    their program, which is CYCLE, does; `literal` is the printed direction. The bounds
    of ADDITIVE, `on_zero`, `max_ratio` and all schedules but LINEAR are ours.
    """
    reward = jnp.asarray(reward, jnp.float32)
    seen = ~jnp.isnan(reward)
    if rule.kind is GuidanceLength.FIXED or rule.kind in SCHEDULES:
        seen = jnp.ones_like(seen)
    count = state.count + seen.astype(jnp.int32)
    rewards = jnp.concatenate([reward[None], state.rewards[:-1]])
    match rule.kind:
        case GuidanceLength.ADDITIVE:
            length = _added(rule, state.length, rewards, count)
        case GuidanceLength.MULTIPLICATIVE:
            known = jnp.minimum(state.count, rule.window)
            average = _mean_of_first(state.rewards, known)
            length = _multiplied(rule, state.length, average, reward)
            length = jnp.where(known > 0, length, state.length)
        case GuidanceLength.CYCLE:
            average = _mean_of_first(state.rewards, jnp.int32(_CYCLE_STEPS - 1))
            length = _multiplied(rule, state.length, average, reward)
            length = jnp.where(count % _CYCLE_STEPS == 0, length, state.length)
        case _:
            # Nothing is measured, and a NaN would stay in the state.
            return state.replace(length=_scheduled(rule, count), count=count)
    new = LengthState(length, rewards, count)
    return _choose(seen, new, state)


def to_numbers(state: LengthState) -> dict[str, Any]:
    """Returns a state as plain numbers that JSON can write without loss."""
    return {
        "length": int(state.length),
        "rewards": np.asarray(state.rewards).tolist(),
        "count": int(state.count),
    }


def from_numbers(numbers: dict[str, Any]) -> LengthState:
    """Returns the state of which `to_numbers` gave the numbers."""
    return LengthState(
        length=jnp.int32(numbers["length"]),
        rewards=jnp.asarray(numbers["rewards"], jnp.float32),
        count=jnp.int32(numbers["count"]),
    )


def _scheduled(rule: LengthRule, steps: Int[Array, ""]) -> Int[Array, ""]:
    """Returns the length after some steps; without a schedule, the initial one."""
    last = rule.total_steps - 1
    left = jnp.maximum(last - steps, 0).astype(jnp.float32) / max(last, 1)
    match rule.kind:
        case GuidanceLength.LINEAR:
            part = left
        case GuidanceLength.CONCAVE:
            part = jnp.power(left, rule.power)
        case GuidanceLength.COSINE:
            part = (1 - jnp.cos(math.pi * left)) / 2
        case GuidanceLength.STEPWISE:
            falls = (steps // rule.interval).astype(jnp.float32)
            length = whole_tokens(rule.initial * jnp.power(rule.factor, falls))
            return jnp.maximum(length, rule.final)
        case _:
            return jnp.int32(rule.initial)
    return whole_tokens(rule.final + (rule.initial - rule.final) * part)


def _added(
    rule: LengthRule,
    length: Int[Array, ""],
    rewards: Float[Array, " window"],
    count: Int[Array, ""],
) -> Int[Array, ""]:
    """Returns the length one delta away; the first of `rewards` is the latest."""
    # Measured from the latest reward, equal rewards are exact zeros: their rounded mean
    # may be above or below them.
    known = jnp.minimum(count, rule.window)
    below = _mean_of_first(rewards[0] - rewards, known)
    tolerance = _TIE * jnp.max(jnp.abs(rewards))
    at_tie = {Tie.INCREASE: 1, Tie.HOLD: 0, Tie.DECREASE: -1}[rule.tie]
    sign = jnp.where(below > 0, -1, 1)
    sign = jnp.where(jnp.abs(below) <= tolerance, at_tie, sign)
    return jnp.clip(length + sign * rule.delta, rule.minimum, rule.maximum)


def _multiplied(
    rule: LengthRule,
    length: Int[Array, ""],
    average: Float[Array, ""],
    reward: Float[Array, ""],
) -> Int[Array, ""]:
    """Returns the length times average / reward."""
    cap = rule.max_ratio or math.inf
    usable = (reward > 0) & (average > 0)
    top, bottom = jnp.where(usable, average, 1), jnp.where(usable, reward, 1)
    if rule.literal and rule.kind is GuidanceLength.MULTIPLICATIVE:
        top, bottom = bottom, top
    ratio = jnp.clip(top / bottom, 1 / cap, cap)
    if rule.on_zero is OnZero.INCREASE:
        ratio = jnp.where(reward <= 0, cap, ratio)
    # Bounded before it is cut: int32 has no room for a length over nearly nothing.
    longest = jnp.minimum(length.astype(jnp.float32) * ratio, float(rule.maximum))
    return jnp.clip(whole_tokens(longest), rule.minimum, rule.maximum)


def _mean_of_first(
    values: Float[Array, " window"], count: Int[Array, ""]
) -> Float[Array, ""]:
    """Returns the mean of the first `count` values, 0 of none."""
    first = jnp.arange(values.shape[0]) < count
    total = jnp.sum(jnp.where(first, values, 0))
    return total / jnp.maximum(count, 1).astype(values.dtype)


def _choose(seen: Array, new: LengthState, old: LengthState) -> LengthState:
    """Returns the new state where the reward was seen."""
    return LengthState(
        length=jnp.where(seen, new.length, old.length),
        rewards=jnp.where(seen, new.rewards, old.rewards),
        count=jnp.where(seen, new.count, old.count),
    )
