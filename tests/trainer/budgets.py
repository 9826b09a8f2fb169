"""Rows of episodes with costs, for tests of budgets."""

import numpy as np

from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.scoring import RewardTable


def asked(*queries, answer="a"):
    """Turns that ask `(query, ids)` or `query`, which finds nothing, then answer."""
    pairs = [each if isinstance(each, tuple) else (each, ()) for each in queries]
    return (*(Turn("t", query, tuple(ids)) for query, ids in pairs), Turn(answer))


def completion(turns, group=0, **columns):
    return Completion("q", "t", "r", 9, True, group, columns, turns=tuple(turns))


def groups_of(episodes, size=2, **columns):
    """Completions of these episodes, `size` a group."""
    return [
        completion(turns, row // size, **columns) for row, turns in enumerate(episodes)
    ]


def trajectories(shown, written):
    """Rows of two prompt tokens with so many of observations, then sampled ones."""
    width = 2 + max(a + b for a, b in zip(shown, written, strict=True))
    origins = np.full((len(shown), width), Origin.PAD, np.uint8)
    for row, (a, b) in enumerate(zip(shown, written, strict=True)):
        origins[row, :2] = Origin.PROMPT
        origins[row, 2 : 2 + a] = Origin.OBSERVATION
        origins[row, 2 + a : 2 + a + b] = Origin.SAMPLED
    return Trajectories(
        tokens=np.zeros(origins.shape, np.int32),
        origins=origins,
        behavior_log_probs=np.zeros(origins.shape, np.float32),
        kept_log_mass=np.zeros(origins.shape, np.float32),
        prompt_lengths=np.full(len(shown), 2, np.int32),
        lengths=(origins != Origin.PAD).sum(axis=1).astype(np.int32),
        finished=np.ones(len(shown), bool),
    )


def table(right):
    """A reward called accuracy, and a total that is more than it."""
    values = np.array(right, float)[:, None]
    return RewardTable(("accuracy",), values, values[:, 0] + 0.25)
