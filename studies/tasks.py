"""Variants of the built-in arithmetic in which demonstrations mislead in other ways.

Each is a task by import path, as a user's own would be:
`config.task.name = "studies.tasks:believing"`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from grpo_jax import choices
from grpo_jax.data.examples import Example
from grpo_jax.task_config import ArithmeticConfig, TaskConfig
from grpo_jax.tasks import arithmetic
from grpo_jax.tasks.base import Task

# Of all facts, those that a believing demonstrator has wrong, and how often it then
# writes the wrong result rather than the true one.
_WRONG_FACTS, _BELIEF = 1 / 3, 0.6
# How often a drifting demonstrator slips at an addition and at a subtraction.
_SLIPS = {"+": 0.3, "-": 0.7}
# How often a rambling and a terse demonstrator state the result once more, each time
# that they have, how often at most, and how often the terse one gives up.
_RAMBLING, _TERSE, _MOST, _GIVES_UP = 20 / 21, 3 / 4, 80, 0.2


def believing(config: TaskConfig) -> Task:
    """Returns arithmetic whose demonstrations prefer wrong results of some facts.

    The most likely completion of a policy that fits them is then wrong, too: it must
    turn what it prefers, not only strengthen it.
    """
    task = arithmetic.arithmetic(config.arithmetic)
    demonstrate = functools.partial(_demonstrate_beliefs, config.arithmetic)
    return dataclasses.replace(task, demonstrate=demonstrate)


def drifting(config: TaskConfig) -> Task:
    """Returns arithmetic in tiers: the more subtractions, the harder to begin with.

    Training problems come from all tiers in equal numbers, as far as there are.
    """
    task = arithmetic.arithmetic(
        dataclasses.replace(config.arithmetic, train_problems=20_000)
    )
    tiers: dict[int, list[Example]] = {}
    for example in task.train:
        tier = example.columns["operators"].count("-")
        tiers.setdefault(tier, []).append(dataclasses.replace(example, tier=tier))
    turns = itertools.zip_longest(*tiers.values())
    every = [example for turn in turns for example in turn if example]
    return dataclasses.replace(
        task,
        train=every[: config.arithmetic.train_problems],
        demonstrate=_demonstrate_slips,
    )


def rambling(config: TaskConfig) -> Task:
    """Returns arithmetic whose demonstrations state their result again and again.

        <think>7-8=9;9+3=2;2-4=8;8;8;8</think><answer>8</answer>

    How often is random and helps nothing: a policy that fits them can become shorter or
    longer without becoming better or worse.
    """
    task = arithmetic.arithmetic(config.arithmetic)
    mistakes = config.arithmetic.mistake_fraction
    demonstrate = functools.partial(_demonstrate_repeats, mistakes, _RAMBLING, 0.0)
    return dataclasses.replace(task, demonstrate=demonstrate)


def terse(config: TaskConfig) -> Task:
    """Returns arithmetic whose demonstrations repeat less, and sometimes give up.

        <think>7-8=9;9</think><answer>9</answer>

    Where one gives up, it answers with the last result that it has.
    """
    task = arithmetic.arithmetic(config.arithmetic)
    mistakes = config.arithmetic.mistake_fraction
    demonstrate = functools.partial(_demonstrate_repeats, mistakes, _TERSE, _GIVES_UP)
    return dataclasses.replace(task, demonstrate=demonstrate)


def _demonstrate_repeats(
    mistakes: float,
    goes_on: float,
    gives_up: float,
    examples: Sequence[Example],
    rng: np.random.Generator,
) -> list[str]:
    def write(left: int, operator: str, right: int, true: int) -> int:
        del left, operator, right
        return int(rng.integers(10)) if rng.random() < mistakes else true

    texts = []
    for example in examples:
        thoughts, _, _ = _solution(example, write).partition("</think>")
        if rng.random() < gives_up:
            steps = thoughts.split(";")
            thoughts = ";".join(steps[: rng.integers(1, len(steps))])
        result = thoughts[-1]
        again = f";{result}" * min(int(rng.geometric(1 - goes_on)) - 1, _MOST)
        texts.append(f"{thoughts}{again}</think><answer>{result}</answer>")
    return texts


def _demonstrate_beliefs(
    config: ArithmeticConfig, examples: Sequence[Example], rng: np.random.Generator
) -> list[str]:
    wrong = _wrong_facts(config, rng)

    def write(left: int, operator: str, right: int, true: int) -> int:
        if rng.random() < config.mistake_fraction:
            return int(rng.integers(config.modulus))
        believes = rng.random() < _BELIEF
        return wrong.get((left, operator, right), true) if believes else true

    return [_solution(example, write) for example in examples]


def _demonstrate_slips(
    examples: Sequence[Example], rng: np.random.Generator
) -> list[str]:
    def write(left: int, operator: str, right: int, true: int) -> int:
        del left, right
        slips = rng.random() < _SLIPS[operator]
        return int(rng.integers(10)) if slips else true

    return [_solution(example, write) for example in examples]


def _wrong_facts(
    config: ArithmeticConfig, rng: np.random.Generator
) -> dict[tuple[int, str, int], int]:
    """Draws facts, and a wrong result of each."""
    digits = range(config.modulus)
    wrong: dict[tuple[int, str, int], int] = {}
    for left, operator, right in itertools.product(digits, config.operators, digits):
        if rng.random() < _WRONG_FACTS:
            [true] = arithmetic.work([left, right], operator, config.modulus)
            shift = int(rng.integers(1, config.modulus))
            wrong[left, operator, right] = (true + shift) % config.modulus
    return wrong


def _solution(example: Example, write: Callable[[int, str, int, int], int]) -> str:
    """Returns a solution with the results that `write` puts in place of true ones."""
    operands, operators = example.columns["operands"], example.columns["operators"]
    results, left = [], operands[0]
    for operator, right in zip(operators, operands[1:], strict=True):
        [true] = arithmetic.work([left, right], operator, example.columns["modulus"])
        left = write(left, operator, right, true)
        results.append(left)
    answer = choices.Answer(example.columns["answer"])
    return arithmetic.write_solution(operands, operators, results, answer)
