"""From a task's name to the task."""

import dataclasses
from typing import Any

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.imports import import_function
from grpo_jax.rewards.tags import tag_set
from grpo_jax.tasks.arithmetic import arithmetic
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.code import code
from grpo_jax.tasks.expert_files import experts_of
from grpo_jax.tasks.math import math
from grpo_jax.tasks.multihop import multihop
from grpo_jax.tasks.world import world

_BUILT_IN = ("arithmetic", "math", "code", "world", "multihop")


def load_task(task: TaskConfig, reward: RewardConfig) -> Task:
    """Builds the task that `task.name` names; its `close()` ends what it started.

    Args:
      task: `name` is one of the built-in ones or "package.module:function", a
        function that is called with this config and returns a `Task`.
      reward: limits of the verifier, for tasks that use one.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: an unknown name, a task that breaks the rules of `Task`, or an expert
        of no use.
    """
    match task.name:
        case "arithmetic":
            built = arithmetic(task.arithmetic)
        case "math":
            built = math(task, reward)
        case "code":
            built = code(task, reward)
        case "world":
            built = world(task.world, tag_set(task.tags), reward)
        case "multihop":
            built = multihop(task, tag_set(task.tags), reward)
        case _:
            built = import_function(task.name, "config.task.name", _BUILT_IN)(task)
    checked = _checked(built, task.name)
    if not task.experts_path:
        return checked
    experts = experts_of(task.experts_path, checked.train, drop=task.drop_bad_experts)
    return dataclasses.replace(checked, experts=experts)


def _checked(task: Any, name: str) -> Task:
    if not isinstance(task, Task):
        raise ValueError(
            f"config.task.name is {name!r}: it returned a {type(task).__name__}; "
            "return a grpo_jax.tasks.base.Task"
        )
    if "accuracy" not in task.rewards:
        raise ValueError(
            f"task {name!r} has the rewards {list(task.rewards)}: one of them must be "
            "'accuracy', which evaluation reports"
        )
    for watched in task.watched:
        if watched not in task.rewards:
            raise ValueError(
                f"task {name!r} watches {watched!r}, which is none of its rewards "
                f"{list(task.rewards)}: name one of them"
            )
    if not task.train:
        raise ValueError(f"task {name!r} has no training example: give at least one")
    for split in ("train", "validation", "test"):
        ids = [example.id for example in getattr(task, split)]
        impossible = [id for id in ids if not 0 <= id < 2**31]
        if impossible or len(set(ids)) < len(ids):
            raise ValueError(
                f"task {name!r}, split {split}: ids must be distinct and from 0 to "
                f"2**31 - 1, such as the row's index; "
                f"{f'found {impossible[0]}' if impossible else 'some occur twice'}"
            )
    return task
