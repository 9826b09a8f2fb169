"""What a task gives the trainer: examples, rewards and worked solutions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from grpo_jax.data.examples import Demonstration, Example
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.base import RewardFunction
from grpo_jax.rewards.pool import VerifierPool
from grpo_jax.tasks.experts import ExpertTurn

# Worked solutions to show in a warm start, one for each example.
Demonstrate = Callable[
    [Sequence[Example], np.random.Generator], Sequence[Demonstration]
]


def own_solutions(examples: Sequence[Example], rng: np.random.Generator) -> list[str]:
    """Returns each example's own solution.

    Raises:
      ValueError: an example has none.
    """
    del rng  # a solution that was written down is shown as it is
    for example in examples:
        if not example.solution:
            raise ValueError(
                f"example {example.id} has no worked solution to demonstrate: set "
                "config.task.solution_column to a column that is filled in every row, "
                "or config.warm_start.steps=0"
            )
    return [example.solution for example in examples]


def failed_checks(pool: VerifierPool) -> dict[str, int]:
    """Returns how many checks were cut off and how many failed, since the last call."""
    counts = pool.take_counts()
    return {
        "reward/timeouts": counts["timeout"],
        "reward/errors": counts["error"] + counts["killed"],
    }


def _nothing():
    pass


@dataclasses.dataclass(frozen=True)
class Task:
    """Questions, references and which rewards apply.

    Attributes:
      name: what logs and reports call it.
      train: examples the policy is trained on.
      validation: examples looked at during training; may be empty.
      test: examples looked at before and after; may be empty.
      rewards: rewards that a config may name; "accuracy" must be one of them.
      watched: those from 0 to 1 that evaluations report beside accuracy, whether or not
        a run trains on them.
      demonstrate: worked solutions for a warm start, drawn with a generator.
      documents: what a search agent can find; () where the task needs no search or
        brings no corpus of its own.
      experts: by id of a training example, what an expert did; for some of them.
      take_counts: how many checks ended in which way since the last call, by the
        name of a metric.
      close: frees what the rewards hold, such as worker processes; safe to repeat.
    """

    name: str
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]
    rewards: Mapping[str, RewardFunction]
    watched: Sequence[str] = ()
    demonstrate: Demonstrate = own_solutions
    documents: Sequence[Document] = ()
    experts: Mapping[int, Sequence[ExpertTurn]] = dataclasses.field(
        default_factory=dict
    )
    take_counts: Callable[[], Mapping[str, float]] = dict
    close: Callable[[], None] = _nothing
