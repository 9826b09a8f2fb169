"""An evaluation in parts: by how many hops, how hard, of which type problems are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from grpo_jax.data.examples import Example
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import statistics

# Columns of an example that say to which part a problem belongs.
COLUMNS = ("hops", "level", "type")
# A column of more values than this names problems instead of kinds of them.
_MOST_VALUES = 20


def parts_of(columns: Mapping[str, Any]) -> dict[str, str]:
    """Returns to which parts a problem belongs, by column; 0 and "" are not known."""
    found = {name: columns.get(name) for name in COLUMNS}
    return {
        name: str(value)
        for name, value in found.items()
        if isinstance(value, str | int) and value
    }


def by_part(
    examples: Sequence[Example],
    completions: Sequence[Completion],
    table: RewardTable,
    accuracy: Float[np.ndarray, "N k"],
    greedy: Float[np.ndarray, "N 1"] | None,
    confidence: float,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns an evaluation by column and value, such as `["hops"]["2"]`.

    Args:
      examples: N problems.
      completions: k of each, adjacent.
      table: their rewards.
      accuracy: the same as what is right; NaN was not graded.
      greedy: accuracy of greedy completions; None if there are none.
      confidence: of intervals.

    Returns:
      Only columns of which a problem has a value, and at most 20 different ones; whole
      numbers in their order, words in alphabetical order.
    """
    known = [parts_of(example.columns) for example in examples]
    samples, found = accuracy.shape[1], {}
    for column in COLUMNS:
        values = {each[column] for each in known if column in each}
        if not 0 < len(values) <= _MOST_VALUES:
            continue
        found[column] = {}
        for value in sorted(values, key=_order):
            rows = np.flatnonzero([each.get(column) == value for each in known])
            places = (rows[:, None] * samples + np.arange(samples)).ravel()
            found[column][value] = {
                "problems": len(rows),
                "sampled": pass_at_one(accuracy[rows], confidence),
                "greedy": None
                if greedy is None
                else pass_at_one(greedy[rows], confidence),
                **means(completions, table, places),
            }
    return found


def pass_at_one(
    accuracy: Float[np.ndarray, "N k"], confidence: float
) -> dict[str, dict[str, float]]:
    """Returns pass@1 with its interval, in the form of a whole evaluation."""
    values = statistics.pass_at_k(accuracy, 1)
    return {"pass@1": statistics.mean_with_interval(values, confidence)}


def means(
    completions: Sequence[Completion], table: RewardTable, rows: Int[np.ndarray, " n"]
) -> dict[str, float | None]:
    """Returns means over some completions, by their names in an evaluation.

    `REWARD_mean` of every reward, over the completions that have one, None if none has;
    `completion_tokens_mean`; and of episodes `sampled_tokens_mean`, what the policy
    wrote, and `calls_mean`.
    """
    some = [completions[row] for row in rows]
    found: dict[str, float | None] = {
        "completion_tokens_mean": float(np.mean([each.num_tokens for each in some]))
    }
    if any(each.turns for each in some):
        calls = [sum(bool(turn.query) for turn in each.turns) for each in some]
        found["calls_mean"] = float(np.mean(calls))
        tokens = [each.sampled_tokens for each in some]
        found["sampled_tokens_mean"] = float(np.mean(tokens))
    for name, values in zip(table.names, table.values[rows].T, strict=True):
        graded = values[~np.isnan(values)]
        found[f"{name}_mean"] = float(graded.mean()) if len(graded) else None
    return found


def _order(value: str) -> tuple[bool, int, str]:
    return (not value.isdecimal(), int(value) if value.isdecimal() else 0, value)
