"""Rewards by name, and the table of their values over a batch."""

import dataclasses
import difflib
import importlib
import math
import numbers
import os
import sys
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from jaxtyping import Float

from grpo_jax.rewards.base import Completion, RewardFunction


class RewardError(ValueError):
    """A reward function raised, or returned what is not one number a completion."""


@dataclasses.dataclass(frozen=True)
class RewardTable:
    """What each reward gave each completion.

    Attributes:
      names: the rewards, in the order of the columns.
      values: unweighted; NaN where a reward does not apply.
      totals: weighted sums of those that apply; NaN where none with a weight does.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "B rewards"]
    totals: Float[np.ndarray, "B"]


def score(
    completions: Sequence[Completion],
    rewards: Mapping[str, tuple[float, RewardFunction]],
) -> RewardTable:
    """Returns every reward of every completion, and their weighted sums.

        totals_i = sum of weight_k * values_ik over k with weight_k != 0 and a value

    Args:
      completions: a batch.
      rewards: name to (weight, function). Weight 0 only watches: the reward is
        computed and kept in `values` but enters no total.

    Where a completion's own record says that a retrieval failed, no reward has a value.

    Raises:
      RewardError: names the reward, and the row and value if there is one.
    """
    columns = [_column(name, each[1], completions) for name, each in rewards.items()]
    weights = np.array([weight for weight, _ in rewards.values()], np.float64)
    if not np.isfinite(weights).all():
        raise ValueError(f"reward weights are {weights.tolist()}: use finite numbers")
    values = np.zeros((len(completions), len(rewards)), np.float64)
    if columns:
        values = np.stack(columns, axis=1)
    values[np.array([each.failed for each in completions], bool)] = np.nan
    counted = ~np.isnan(values) & (weights != 0)
    totals = np.where(counted, values * weights, 0.0).sum(axis=1)
    totals = np.where(counted.any(axis=1), totals, np.nan)
    return RewardTable(tuple(rewards), values, totals)


def load_reward(name: str, builtin: Mapping[str, RewardFunction]) -> RewardFunction:
    """Returns the reward of that name: in `builtin`, or "package.module:function".

    Modules of the current working directory can be named too.

    Raises:
      ValueError: there is no such name, module or function.
    """
    if name in builtin:
        return builtin[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, builtin, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(
            f"unknown reward {name!r}; {hint}there are {sorted(builtin)}, and "
            'functions of your own as "package.module:function"'
        )
    module = _import(module_name, name)
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"reward {name!r}: module {module_name!r} has no attribute "
            f"{attribute!r}{hint}"
        )
    function = getattr(module, attribute)
    if not callable(function):
        raise ValueError(
            f"reward {name!r} is a {type(function).__name__}: it must be a function of "
            "a sequence of completions"
        )
    return cast(RewardFunction, function)


def _import(module_name: str, reward: str):
    if os.getcwd() not in sys.path:
        # Last, so that no file of the working directory hides an installed package.
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(missing + "."):
            raise ValueError(
                f"reward {reward!r}: module {module_name!r} imports {missing!r}, which "
                "is not installed"
            ) from error
        raise ValueError(
            f"reward {reward!r}: no module {missing!r} in {os.getcwd()} or among the "
            "installed packages"
        ) from error
    except Exception as error:
        raise ValueError(
            f"reward {reward!r}: importing {module_name!r} raised {error!r}"
        ) from error


def _column(
    name: str, function: RewardFunction, completions: Sequence[Completion]
) -> Float[np.ndarray, "B"]:
    """Returns one reward's values, checked, with NaN for None."""
    try:
        values = list(function(completions))
    except Exception as error:
        raise RewardError(f"reward {name!r} raised {error!r}") from error
    if len(values) != len(completions):
        raise RewardError(
            f"reward {name!r} returned {len(values)} values for {len(completions)} "
            "completions: return one a completion, None where it does not apply"
        )
    for row, value in enumerate(values):
        number = isinstance(value, (numbers.Real, np.bool_))
        if value is not None and not (number and math.isfinite(value)):
            raise RewardError(
                f"reward {name!r} returned {value!r} for completion {row}: return a "
                "finite number, or None where it does not apply"
            )
    return np.array([math.nan if v is None else float(v) for v in values], np.float64)
