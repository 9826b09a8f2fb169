"""What right completions pay for what they cost, and how much that is as a run goes on.

    penalty = right (beta share + redundancy_penalty redundant calls)
    beta   <- beta + beta_rate (mean cost - target_cost), within 0 and max_beta

Only right completions pay. A wrong one that asks nothing would otherwise be the best of
a group that has none right, and a policy would learn not to ask: what it saves is
certain, and what it loses was hardly ever there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax.config import TrainConfig
from grpo_jax.data.examples import Example
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import budget, early_exit
from grpo_jax.trainer.substitutes import Substitute, put_rows


class Charges(NamedTuple):
    """What a step's rows pay.

    Attributes:
      rows: of what is in each place in the update, its `cost`, NaN of an expert's, and
        the `penalty`, at least 0, that is taken off its total; where they are measured.
      metrics: of the step, of what the policy was asked to write.
    """

    rows: dict[str, Float[np.ndarray, " B"]]
    metrics: dict[str, float]

    def of(self, places: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns the penalties of some places."""
        if "penalty" not in self.rows:
            return np.zeros(len(places))
        return self.rows["penalty"][places]


NO_CHARGES = Charges({}, {})


class _Bill(NamedTuple):
    """What rows cost and pay.

    Attributes:
      costs: of each row.
      excess: of them, what is not free.
      for_costs: the penalty of each row for its costs.
      redundancy: calls of no use: near duplicates, stale ones, either.
      for_redundancy: the penalty for them.
      right: rows that may be charged.
    """

    costs: Float[np.ndarray, " B"]
    excess: Float[np.ndarray, " B"]
    for_costs: Float[np.ndarray, " B"]
    redundancy: Int[np.ndarray, "B 3"]
    for_redundancy: Float[np.ndarray, " B"]
    right: Bool[np.ndarray, " B"]


class Budget:
    """Charges the rows of every step.

    Attributes:
      beta: the most that costs take off a total, at present.
    """

    def __init__(self, config: TrainConfig, examples: Iterable[Example]):
        """Starts with the configured beta.

        Args:
          config: of the run.
          examples: that it trains on.

        Raises:
          ValueError: what is free follows gold documents, and no example names any.
        """
        known = any(each.columns.get("evidence") for each in examples)
        if config.budget.free_by_evidence and not known:
            raise ValueError(
                "config.budget.free_by_evidence is True and no training question of "
                f"task {config.task.name!r} names its gold documents (column "
                "'evidence'): use config.budget.free_cost instead"
            )
        self._config = config
        self.beta = config.budget.initial_beta

    def max_calls(self, step: int) -> int:
        """Returns the calls that an episode of a step may have.

        Args:
          step: from 1.
        """
        config, most = self._config.budget, self._config.episode.max_calls
        if not config.first_calls:
            return most
        more = (step - 1) // config.call_every_steps
        return min(most, config.first_calls + more)

    def charge(
        self,
        completions: Sequence[Completion],
        trajectories: Trajectories,
        rewards: RewardTable,
        substitutes: Sequence[Substitute],
        step: int,
    ) -> Charges:
        """Returns what every row of a step pays, and moves beta on.

        Args:
          completions: rows that were rolled out, those of a group adjacent.
          trajectories: of the rows.
          rewards: of the rows, raw.
          substitutes: what replaces some of them in the update: continuations pay as
            all others do, what an expert wrote does not.
          step: from 1.
        """
        config, metrics = self._config.budget, {}
        if config.first_calls:
            metrics["budget/max_calls"] = float(self.max_calls(step))
        if config.exit_in_training:
            ended = early_exit.exit_fraction(completions, config.exit_confidence)
            probed = budget.count_probe_tokens(completions)
            metrics["budget/exit_fraction"] = ended
            metrics["budget/probe_tokens"] = float(probed.mean())
        if not config.charges:
            return Charges({}, metrics)
        right = rewards.names.index(config.right_reward)
        values = rewards.values[:, right].copy()
        bill = self._bill(completions, trajectories, values)
        metrics |= self._metrics(completions, bill)
        continued = [each for each in substitutes if not _is_experts(each)]
        if continued:
            completions = list(completions)
            for each in continued:
                completions[each.place] = each.completion
                values[each.place] = each.values[right]
            changed = put_rows(trajectories, continued)
            bill = self._bill(completions, changed, values)
        rows = {"penalty": bill.for_costs + bill.for_redundancy}
        if config.measures_costs:
            rows["cost"] = bill.costs
            self._move(metrics["budget/cost_mean"])
        for each in substitutes:
            if _is_experts(each):
                rows["penalty"][each.place] = 0.0
                if "cost" in rows:
                    rows["cost"][each.place] = np.nan
        return Charges(rows, metrics)

    def _bill(
        self,
        completions: Sequence[Completion],
        trajectories: Trajectories,
        values: Float[np.ndarray, " B"],
    ) -> _Bill:
        """Returns what rows cost and pay; `values` say which of them are right."""
        config, group_size = self._config.budget, self._config.rollout.group_size
        right = (values > 0) & _counted(completions)
        costs = budget.costs(completions, trajectories, config)
        excess = np.maximum(costs - budget.allowances(completions, config), 0)
        shares = budget.shares(excess, right, config, group_size)
        redundancy = np.array(
            [budget.redundancy(row.turns, config.near_duplicate) for row in completions]
        )
        wasted = np.where(right, config.redundancy_penalty * redundancy[:, -1], 0.0)
        return _Bill(costs, excess, self.beta * shares, redundancy, wasted, right)

    def _metrics(
        self, completions: Sequence[Completion], bill: _Bill
    ) -> dict[str, float]:
        """Returns the metrics of rows whose retrieval did not fail."""
        config, counted = self._config.budget, _counted(completions)
        calls = budget.count_calls(completions)
        found = {}
        if config.measures_costs:
            found |= {
                "budget/cost_mean": _mean(bill.costs[counted]),
                "budget/right_cost_mean": _mean(bill.costs[bill.right]),
                "budget/over_fraction": _mean(bill.excess[counted] > 0),
                "budget/penalty_mean": _mean(bill.for_costs[bill.right]),
                "budget/beta": self.beta,
            }
        if config.free_by_evidence:
            needed = budget.count_evidence(completions)
            known = counted & (needed > 0)
            surplus = (calls - needed)[known]
            found |= {
                "budget/calls_above_evidence": _mean(np.maximum(surplus, 0)),
                "budget/calls_below_evidence": _mean(np.maximum(-surplus, 0)),
            }
        if config.measures_redundancy:
            asked = max(int(calls[counted].sum()), 1)
            near, stale, either = bill.redundancy[counted].sum(axis=0) / asked
            found |= {
                "budget/near_duplicate_fraction": float(near),
                "budget/stale_call_fraction": float(stale),
                "budget/redundant_fraction": float(either),
                "budget/redundancy_penalty_mean": _mean(
                    bill.for_redundancy[bill.right]
                ),
            }
        return found

    def _move(self, cost: float) -> None:
        """Raises beta where a step cost too much, lowers it where it was cheap."""
        config = self._config.budget
        if np.isfinite(cost):
            moved = self.beta + config.beta_rate * (cost - config.target_cost)
            self.beta = min(max(moved, 0.0), config.max_beta)

    def get_state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold; JSON can."""
        return {"beta": self.beta}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on as the one that returned `state`."""
        self.beta = state["beta"]


def _counted(completions: Sequence[Completion]) -> Bool[np.ndarray, " B"]:
    """Returns which rows say anything: not those whose retrieval failed."""
    return np.array([not row.failed for row in completions], bool)


def _is_experts(substitute: Substitute) -> bool:
    return bool((substitute.trajectory.origins == Origin.EXPERT).any())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
