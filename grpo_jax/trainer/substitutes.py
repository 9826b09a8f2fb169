"""Rows that take the place of others in an update, and nowhere else.

Metrics, monitors and logs speak of what the policy was asked to write; what replaces a
row for the update (an expert's, a continuation) is kept apart from it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from grpo_jax.records import Trajectories
from grpo_jax.rewards.base import Completion


class Substitute(NamedTuple):
    """One such row.

    Attributes:
      place: number of the row that it replaces.
      trajectory: what it says; B = 1.
      completion: what the rewards saw of it.
      values: its rewards, unweighted; NaN where one does not apply.
      total: what it is worth in the update.
      note: where it comes from, for people.
    """

    place: int
    trajectory: Trajectories
    completion: Completion
    values: Float[np.ndarray, " rewards"]
    total: float
    note: str


def put_rows(rows: Trajectories, substitutes: Sequence[Substitute]) -> Trajectories:
    """Returns trajectories with the substitutes in their places."""
    if not substitutes:
        return rows
    places = [each.place for each in substitutes]

    def put(old: np.ndarray, *new: np.ndarray) -> np.ndarray:
        changed = np.array(old)
        changed[places] = np.concatenate(new)
        return changed

    return jax.tree.map(put, rows, *[each.trajectory for each in substitutes])


def put_totals(
    totals: Float[np.ndarray, " B"], substitutes: Sequence[Substitute]
) -> Float[np.ndarray, " B"]:
    """Returns the rewards of an update with those of the substitutes in it."""
    totals = totals.copy()
    for each in substitutes:
        totals[each.place] = each.total
    return totals
