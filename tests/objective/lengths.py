"""What the tests of guidance lengths share: the rules, and how their lengths move."""

import math

import jax
import jax.numpy as jnp

from grpo_jax.choices import GuidanceLength
from grpo_jax.objective.guidance_length import advance, start

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


def trace(a_rule, rewards, step=advance, state=None):
    """Returns the length of the first step and of that after every reward."""
    state = start(a_rule) if state is None else state
    lengths = [int(state.length)]
    for reward in rewards:
        state = step(a_rule, state, jnp.float32(reward))
        lengths.append(int(state.length))
    return lengths
