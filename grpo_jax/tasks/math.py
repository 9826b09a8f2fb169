"""Mathematics from files: questions with a reference that a verifier checks."""

import functools
from typing import Any

import numpy as np

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.data import sources
from grpo_jax.data.examples import Example
from grpo_jax.rewards.accuracy import accuracy
from grpo_jax.rewards.format import boxed_format, think_answer_format
from grpo_jax.rewards.pool import VerifierPool
from grpo_jax.tasks.base import Task

# Which rows are held out must not depend on a run's seed: runs are compared on them.
_HELD_OUT_SEED = 0
# Columns that judge the attempts of a list, one verdict each.
_VERDICTS = ("correctness_math_verify", "is_reasoning_complete")


def math(config: TaskConfig, reward: RewardConfig) -> Task:
    """Builds the task from `config`'s files; see `read_examples` for a row.

    Validation is `validation_path`, or else the last `validation_rows` rows of a fixed
    permutation of the training file. Training rows that ask a held-out question once
    more are left out.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file, a row or `validation_rows` is impossible.
    """
    train = read_examples(config.train_path, config)
    if config.validation_path:
        validation = read_examples(config.validation_path, config)
    else:
        train, validation = _hold_out(train, config)
    pool = VerifierPool(
        reward.workers,
        check_seconds=reward.check_seconds,
        batch_seconds=reward.batch_seconds,
        check_memory_mb=reward.check_memory_mb,
    )
    return Task(
        name="math",
        train=train,
        validation=validation,
        test=read_examples(config.test_path, config) if config.test_path else [],
        rewards={
            "accuracy": accuracy(pool),
            "format": boxed_format,
            "boxed_format": boxed_format,
            "think_answer_format": think_answer_format,
        },
        take_counts=functools.partial(_failures, pool),
        close=pool.close,
    )


def _failures(pool: VerifierPool) -> dict[str, int]:
    """Returns how many checks were cut off and how many failed, since the last call."""
    counts = pool.take_counts()
    return {
        "reward/timeouts": counts["timeout"],
        "reward/errors": counts["error"] + counts["killed"],
    }


def read_examples(location: str, config: TaskConfig) -> list[Example]:
    """Returns one example a row; its id is the row's index.

    A reference is text or a number. Of a reference in GSM8K's original form,
    `reasoning #### 1,234`, only what follows the last `####` counts, without commas. A
    solution is text and taken as it is, or a list of attempts, of which the first that
    `correctness_math_verify` and `is_reasoning_complete`, lists beside it where there
    are such columns, call right and complete is taken (OpenR1-Math).

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row without a question or a reference, with its index.
    """
    columns = [config.question_column, config.reference_column]
    columns += filter(None, [config.solution_column, config.tier_column])
    rows = sources.read_rows(location, columns)
    examples = []
    for index, row in enumerate(rows):
        text = functools.partial(_text, f"{location}, row {index} (from 0)", row)
        examples.append(
            Example(
                id=index,
                question=text("question_column", config.question_column),
                reference=text("reference_column", config.reference_column),
                solution=_solution(f"{location}, row {index} (from 0)", row, config),
                tier=_tier(f"{location}, row {index} (from 0)", row, config),
                columns=row,
            )
        )
    return examples


def _text(where: str, row: sources.Row, field: str, column: str) -> str:
    value: Any = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(
            f"{where}: column {column!r} (config.task.{field}) is {value!r:.200}: it "
            "must be text or a number"
        )
    text = str(value)
    if field == "reference_column" and "####" in text:
        text = text.rpartition("####")[2].strip().replace(",", "")
    if not text.strip():
        raise ValueError(
            f"{where}: column {column!r} (config.task.{field}) is {value!r:.200}, "
            "which says nothing: fill it in or remove the row"
        )
    return text


def _solution(where: str, row: sources.Row, config: TaskConfig) -> str:
    value: Any = row.get(config.solution_column) if config.solution_column else None
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise ValueError(
            f"{where}: column {config.solution_column!r} (config.task.solution_column) "
            f"is {value!r:.200}: it must be text or a list of texts"
        )
    verdicts = [row.get(name) for name in _VERDICTS]
    judged = [each for each in verdicts if isinstance(each, list)]
    if any(len(each) != len(value) for each in judged):
        raise ValueError(
            f"{where}: column {config.solution_column!r} has {len(value)} attempts and "
            f"a column of {list(_VERDICTS)} has another number of verdicts"
        )
    right = (x for x, *ok in zip(value, *judged, strict=True) if all(ok))
    return next(right, "")


def _tier(where: str, row: sources.Row, config: TaskConfig) -> int:
    if not config.tier_column:
        return 0
    value: Any = row[config.tier_column]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(
            f"{where}: column {config.tier_column!r} (config.task.tier_column) is "
            f"{value!r:.200}: it must be a whole number"
        )
    return value


def _hold_out(
    examples: list[Example], config: TaskConfig
) -> tuple[list[Example], list[Example]]:
    count = config.validation_rows
    if count >= len(examples):
        raise ValueError(
            f"config.task.validation_rows is {count} and {config.train_path} has "
            f"{len(examples)} rows: hold out fewer, so that some are left to train on"
        )
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(len(examples))
    held_out = {int(index) for index in order[len(examples) - count :]}
    validation = [example for example in examples if example.id in held_out]
    questions = {example.question for example in validation}
    train = [example for example in examples if example.question not in questions]
    if not train:
        raise ValueError(
            f"config.task.validation_rows is {count}: every row of {config.train_path} "
            "asks a question that is held out; hold out fewer"
        )
    return train, validation
