"""What the runs of a study start from: bases that were taught anew for every seed.

A base is a model that was taught the facts of arithmetic on problems of two steps
(school/facts/SEED), then longer problems (school/steps/SEED), both without a mistake,
and at last, as REGIME/base/SEED, the demonstrations of the regime.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from grpo_jax.config import TrainConfig
from studies.study import Name

SCHOOL, FACTS, STEPS, BASE = "school", "facts", "steps", "base"
_LESSONS = (FACTS, STEPS)


@dataclasses.dataclass(frozen=True)
class Regime:
    """Where arms are compared.

    Attributes:
      title: what is special, in a few words.
      seeds: of the bases and of the runs, from 0.
      arms: fields of the configuration that differ, by the name of the arm.
    """

    title: str
    seeds: int
    arms: Mapping[str, Mapping[str, object]]


def set_lesson(config: TrainConfig, arm: str) -> None:
    """Makes a run of supervised training without a mistake."""
    config.trainer.steps = 0
    arithmetic = config.task.arithmetic
    arithmetic.mistake_fraction = 0.0
    config.warm_start.steps = 800
    if arm == FACTS:
        arithmetic.operations = 2
        # There are 4000 of two steps.
        arithmetic.train_problems, arithmetic.validation_problems = 2000, 64
        arithmetic.test_problems = 256
    else:
        config.warm_start.optimizer.learning_rate = 2e-3


def set_fields(config: TrainConfig, fields: Mapping[str, object]) -> None:
    """Sets fields of the configuration, each by its name, such as "trainer.steps"."""
    for field, value in fields.items():
        *sections, key = field.split(".")
        section = config
        for name in sections:
            section = getattr(section, name)
        setattr(section, key, value)


def start(name: Name, base: str = "", lessons: Sequence[str] = _LESSONS) -> Name | None:
    """Returns the run that a run starts from.

    Args:
      name: of the run.
      base: the regime whose base an arm starts from; its own if empty.
      lessons: of the school, first to last.
    """
    if name.regime == SCHOOL:
        before = lessons[: lessons.index(name.arm)]
        return Name(SCHOOL, before[-1], name.seed) if before else None
    if name.arm == BASE:
        return Name(SCHOOL, lessons[-1], name.seed)
    return Name(base or name.regime, BASE, name.seed)


def arms(
    regimes: Mapping[str, Regime], lessons: Sequence[str] = _LESSONS
) -> dict[str, list[str]]:
    """Returns the arms of every regime, with what they start from."""
    arms = {name: [BASE, *regime.arms] for name, regime in regimes.items()}
    return arms | {SCHOOL: [*lessons]}


def names(regimes: Mapping[str, Regime]) -> list[Name]:
    """Returns the runs that are compared."""
    return [
        Name(name, arm, seed)
        for name, regime in regimes.items()
        for arm in regime.arms
        for seed in range(regime.seeds)
    ]
