"""The built-in verifiable task: step-by-step arithmetic modulo a number.

A problem applies k operations from left to right, every result modulo m. With k = 3 and
m = 10 the question `7-8+3-4?` has the worked solution

    <think>7-8=9;9+3=2;2-4=8</think><answer>8</answer>

A random digit is right with probability 1/m: with m = 10, accuracy below about 10% says
nothing. Answers that state all running results, here `<answer>928</answer>`, have no
such floor.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from grpo_jax.choices import Answer
from grpo_jax.data.examples import Example
from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.format import think_answer_format
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.tasks.base import Task

_APPLY: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
}
# Eighths of all problems that belong to a split, whatever is asked for.
_SPLIT_OF_EIGHTH = ("test", "validation") + ("train",) * 6
# Up to this many problems are walked as a permutation, beyond it drawn one by one.
_MAX_PERMUTED = 2**22


def arithmetic(config: ArithmeticConfig) -> Task:
    """Builds the task: the same config gives the same examples on every machine.

    Raises:
      ValueError: a split asks for more problems than belong to it.
    """
    splits = _generate(config)
    return Task(
        name="arithmetic",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        rewards={"accuracy": accuracy, "format": think_answer_format},
        demonstrate=functools.partial(_demonstrate, config.mistake_fraction),
    )


def _generate(config: ArithmeticConfig) -> dict[str, list[Example]]:
    wanted = {
        "train": config.train_problems,
        "validation": config.validation_problems,
        "test": config.test_problems,
    }
    splits: dict[str, list[Example]] = {name: [] for name in wanted}
    missing = sum(wanted.values())
    for operands, operators in _problems(config):
        if not missing:
            break
        question = write_question(operands, operators)
        name = split_of(question)
        if len(splits[name]) < wanted[name]:
            example = _example(len(splits[name]), operands, operators, config)
            splits[name].append(example)
            missing -= 1
    for name, examples in splits.items():
        if len(examples) < wanted[name]:
            raise ValueError(
                f"config.task.arithmetic.{name}_problems is {wanted[name]}: only "
                f"{len(examples)} were found, since there are {_num_problems(config)} "
                f"distinct problems and {_SPLIT_OF_EIGHTH.count(name)}/8 of them "
                f"belong to {name}; ask for fewer, or raise operations or modulus"
            )
    return splits


def split_of(question: str) -> str:
    """Returns the split a question belongs to, from a hash of its text alone.

    So the splits are disjoint, and stay so when sizes or seeds change. A cryptographic
    hash, because a CRC is linear in the bits and could follow their parity.
    """
    digest = hashlib.sha256(question.encode()).digest()
    return _SPLIT_OF_EIGHTH[digest[0] % 8]


def _num_problems(config: ArithmeticConfig) -> int:
    operators = len(set(config.operators))
    return config.modulus ** (config.operations + 1) * operators**config.operations


def _problems(config: ArithmeticConfig) -> Iterator[tuple[list[int], str]]:
    """Yields distinct problems in random order, as operands and operators."""
    symbols = "".join(dict.fromkeys(config.operators))
    for index in _distinct(_num_problems(config), config.problems_seed):
        operands, operators = [], ""
        for _ in range(config.operations + 1):
            index, operand = divmod(index, config.modulus)
            operands.append(operand)
        for _ in range(config.operations):
            index, symbol = divmod(index, len(symbols))
            operators += symbols[symbol]
        yield operands, operators


def _distinct(total: int, seed: int) -> Iterator[int]:
    """Yields distinct integers below `total` in random order."""
    rng = np.random.default_rng(seed)
    if total <= _MAX_PERMUTED:
        yield from map(int, rng.permutation(total))
        return
    seen: set[int] = set()
    num_bytes = total.bit_length() // 8 + 9  # the bias of the modulo is below 2**-64
    for _ in range(total):
        index = int.from_bytes(rng.bytes(num_bytes), "little") % total
        if index not in seen:
            seen.add(index)
            yield index


def _example(
    id: int, operands: Sequence[int], operators: str, config: ArithmeticConfig
) -> Example:
    results = work(operands, operators, config.modulus)
    return Example(
        id=id,
        question=write_question(operands, operators),
        reference=write_answer(results, config.answer),
        solution=write_solution(operands, operators, results, config.answer),
        tier=len(operators),
        columns={
            "operands": list(operands),
            "operators": operators,
            "modulus": config.modulus,
            "answer": config.answer.value,
        },
    )


def work(
    operands: Sequence[int],
    operators: str,
    modulus: int,
    mistakes: Mapping[int, int] | None = None,
) -> list[int]:
    """Returns the k running results: r_i = (r_{i-1} op_i operand_i) mod m.

    Args:
      operands: k + 1 numbers.
      operators: k signs.
      modulus: m.
      mistakes: by index of a step, what is written in place of its result. The next
        step starts from what was written.
    """
    written, results = operands[0], []
    steps = zip(operators, operands[1:], strict=True)
    for index, (operator, operand) in enumerate(steps):
        written = _APPLY[operator](written, operand) % modulus
        if mistakes and index in mistakes:
            written = mistakes[index]
        results.append(written)
    return results


def write_question(operands: Sequence[int], operators: str) -> str:
    """Returns `7-8+3-4?`."""
    steps = zip(operators, operands[1:], strict=True)
    return f"{operands[0]}{''.join(f'{sign}{operand}' for sign, operand in steps)}?"


def write_answer(results: Sequence[int], answer: Answer) -> str:
    """Returns what the answer states of these running results."""
    match answer:
        case Answer.LAST:
            return str(results[-1])
        case Answer.ALL:
            return "".join(map(str, results))


def write_solution(
    operands: Sequence[int],
    operators: str,
    results: Sequence[int],
    answer: Answer = Answer.LAST,
) -> str:
    """Returns the reasoning and the answer that go with these running results."""
    lefts = [operands[0], *results[:-1]]
    steps = zip(lefts, operators, operands[1:], results, strict=True)
    reasoning = ";".join(
        f"{left}{sign}{right}={result}" for left, sign, right, result in steps
    )
    stated = write_answer(results, answer)
    return f"<think>{reasoning}</think><answer>{stated}</answer>"


def demonstrations(
    examples: Sequence[Example], mistake_fraction: float, rng: np.random.Generator
) -> list[str]:
    """Returns a worked solution for each example, with mistakes planted in its steps.

    Each step's result is, with probability `mistake_fraction`, replaced by a uniformly
    random residue, which may happen to be the true one. The next step copies what was
    written and continues from it, and the answer copies the last result: the procedure
    is shown without a fault, so the policy learns it, while at every result digit the
    true value is only the most likely of ten. A policy that fits the demonstrations
    samples the right answer with probability q**k + (1 - q**k) / m for additions and
    subtractions, where q = 1 - mistake_fraction (0.35 with the defaults), although
    its most likely completion is right. GRPO then learns from verification which
    digit is true, as the noisy demonstrations alone could not say. Continuing from
    the true value instead would also break the copying, which no reward sees.
    """
    texts = []
    for example in examples:
        operands, operators, modulus = (
            example.columns[name] for name in ("operands", "operators", "modulus")
        )
        mistaken = np.flatnonzero(rng.random(len(operators)) < mistake_fraction)
        mistakes = {int(index): int(rng.integers(modulus)) for index in mistaken}
        results = work(operands, operators, modulus, mistakes)
        answer = Answer(example.columns["answer"])
        texts.append(write_solution(operands, operators, results, answer))
    return texts


def _demonstrate(
    mistake_fraction: float, examples: Sequence[Example], rng: np.random.Generator
) -> list[str]:
    return demonstrations(examples, mistake_fraction, rng)


def accuracy(completions: Sequence[Completion]) -> list[float]:
    """Returns 1 where the answer equals the reference exactly, else 0.

    The answer is what the last `<answer>...</answer>` after the thoughts holds.
    """
    return [float(_answer(row) == row.reference) for row in completions]


def _answer(completion: Completion) -> str | None:
    text = extraction.prefilled(completion.prompt, completion.text)
    before, closed, _ = extraction.after_thinking(text).rpartition("</answer>")
    _, opened, content = before.rpartition("<answer>")
    return content if opened and closed else None
