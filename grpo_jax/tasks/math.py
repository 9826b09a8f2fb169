"""Mathematics from files: questions with a reference that a verifier checks."""

import functools

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.data import sources
from grpo_jax.data.examples import Example
from grpo_jax.rewards import extraction
from grpo_jax.rewards.accuracy import accuracy
from grpo_jax.rewards.format import boxed_format, think_answer_format
from grpo_jax.rewards.pool import VerifierPool
from grpo_jax.tasks import rows
from grpo_jax.tasks.base import Task, failed_checks


def math(config: TaskConfig, reward: RewardConfig) -> Task:
    """Builds the task from `config`'s files; see `read_examples` for a row.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file, a row or `validation_rows` is impossible.
    """
    train, validation, test = rows.read_splits(
        config, functools.partial(read_examples, config=config)
    )
    pool = verifier(reward)
    return Task(
        name="math",
        train=train,
        validation=validation,
        test=test,
        rewards={
            "accuracy": accuracy(pool),
            "format": boxed_format,
            "boxed_format": boxed_format,
            "think_answer_format": think_answer_format,
        },
        take_counts=functools.partial(failed_checks, pool),
        close=pool.close,
    )


def verifier(reward: RewardConfig) -> VerifierPool:
    """Returns the processes that check answers, with the limits of `reward`."""
    return VerifierPool(
        reward.workers,
        check_seconds=reward.check_seconds,
        batch_seconds=reward.batch_seconds,
        check_memory_mb=reward.check_memory_mb,
    )


def read_examples(location: str, config: TaskConfig) -> list[Example]:
    """Returns one example a row, as `rows.read_examples` does.

    A reference is text or a number. Of a reference in GSM8K's original form,
    `reasoning #### 1,234`, only what follows the last `####` counts, without commas.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row without a question or a reference, with its index.
    """
    return rows.read_examples(location, config, functools.partial(_reference, config))


def _reference(config: TaskConfig, where: str, row: sources.Row) -> str:
    place = (where, row, "reference_column", config.reference_column)
    answer = extraction.after_hashes(rows.text(*place))
    if not answer:
        raise rows.says_nothing(*place)
    return answer
