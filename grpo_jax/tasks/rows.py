"""Examples of a task whose problems come from files, and which of them are held out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from grpo_jax.config import TaskConfig
from grpo_jax.data import sources
from grpo_jax.data.examples import Example

# From where a row is, for messages, and the row to the example's reference.
Reference = Callable[[str, sources.Row], str]

# Which rows are held out must not depend on a run's seed: runs are compared on them.
_HELD_OUT_SEED = 0
# Columns that judge the attempts of a list, one verdict each.
_VERDICTS = ("correctness_math_verify", "is_reasoning_complete")


class Splits(NamedTuple):
    """The examples of a task."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def read_splits(config: TaskConfig, read: Callable[[str], list[Example]]) -> Splits:
    """Reads the files of `config`, each with `read`.

    Validation is `validation_path`, or else the last `validation_rows` rows of a fixed
    permutation of the training file. Training rows that ask a held-out question once
    more are left out.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file, a row or `validation_rows` is impossible.
    """
    train = read(config.train_path)
    if config.validation_path:
        validation = read(config.validation_path)
    else:
        train, validation = _hold_out(train, config)
    test = config.test_path and read(config.test_path)
    return Splits(train, validation, test or [])


def read_examples(
    location: str, config: TaskConfig, reference: Reference
) -> list[Example]:
    """Returns one example a row; its id is the row's index.

    A solution is text and taken as it is, or a list of attempts, of which the first
    that `correctness_math_verify` and `is_reasoning_complete`, lists beside it where
    there are such columns, call right and complete is taken (OpenR1-Math).

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row that cannot be read, with its index.
    """
    columns = [config.question_column, config.reference_column]
    columns += filter(None, [config.solution_column, config.tier_column])
    examples = []
    for index, row in enumerate(sources.read_rows(location, columns)):
        where = f"{location}, row {index} (from 0)"
        examples.append(
            Example(
                id=index,
                question=text(where, row, "question_column", config.question_column),
                reference=reference(where, row),
                solution=_solution(where, row, config),
                tier=_tier(where, row, config),
                columns=row,
            )
        )
    return examples


def text(where: str, row: sources.Row, field: str, column: str) -> str:
    """Returns what a column says, text or a number, as text.

    Raises:
      ValueError: it is something else, or nothing.
    """
    value: Any = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise bad_value(where, row, field, column, "it must be text or a number")
    if not str(value).strip():
        raise says_nothing(where, row, field, column)
    return str(value)


def says_nothing(where: str, row: sources.Row, field: str, column: str) -> ValueError:
    """Returns the error for a value that is empty."""
    problem = "which says nothing; fill it in or remove the row"
    return bad_value(where, row, field, column, problem)


def bad_value(
    where: str, row: sources.Row, field: str, column: str, problem: str
) -> ValueError:
    """Returns the error that names a row, its column, the field and the value."""
    return ValueError(
        f"{where}: column {column!r} (config.task.{field}) is {row[column]!r:.200}: "
        f"{problem}"
    )


def _solution(where: str, row: sources.Row, config: TaskConfig) -> str:
    column = config.solution_column
    value: Any = row.get(column) if column else None
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        problem = "it must be text or a list of texts"
        raise bad_value(where, row, "solution_column", column, problem)
    verdicts = [row.get(name) for name in _VERDICTS]
    judged = [each for each in verdicts if isinstance(each, list)]
    if any(len(each) != len(value) for each in judged):
        raise ValueError(
            f"{where}: column {column!r} has {len(value)} attempts and "
            f"a column of {list(_VERDICTS)} has another number of verdicts"
        )
    right = (x for x, *ok in zip(value, *judged, strict=True) if all(ok))
    return next(right, "")


def _tier(where: str, row: sources.Row, config: TaskConfig) -> int:
    if not config.tier_column:
        return 0
    value: Any = row[config.tier_column]
    if isinstance(value, bool) or not isinstance(value, int):
        problem = "it must be a whole number"
        raise bad_value(where, row, "tier_column", config.tier_column, problem)
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
