"""What a step's rollout and rewards say, as metrics."""

import numpy as np
from jaxtyping import Float

from grpo_jax.config import TrainConfig
from grpo_jax.records import Trajectories
from grpo_jax.rewards.scoring import RewardTable


def rollout_metrics(
    trajectories: Trajectories,
) -> dict[str, float]:
    """Returns lengths and truncation of a rollout."""
    tokens = trajectories.lengths - trajectories.prompt_lengths
    finished = trajectories.finished
    ended = tokens[finished]
    return {
        "rollout/completion_tokens_mean": float(tokens.mean()),
        "rollout/completion_tokens_max": int(tokens.max()),
        "rollout/finished_tokens_mean": float(ended.mean()) if len(ended) else np.nan,
        "rollout/truncated_fraction": 1 - float(finished.mean()),
        "rollout/kept_mass_min": float(np.exp(trajectories.kept_log_mass.min())),
    }


def reward_metrics(
    table: RewardTable, advantages: Float[np.ndarray, " B"], config: TrainConfig
) -> dict[str, float]:
    """Returns means of every reward and how much the groups disagree within.

    A group whose advantages are all 0 teaches nothing; `zero_variance_fraction` counts
    them.
    """
    totals, group_size = table.totals, config.rollout.group_size
    groups = totals.reshape(-1, group_size)
    spread = [_std(group[~np.isnan(group)]) for group in groups]
    silent = (advantages.reshape(-1, group_size) == 0).all(axis=1)
    metrics = {
        "reward/mean": _mean(totals),
        "reward/std_in_group": float(np.mean(spread)),
        "reward/zero_variance_fraction": float(silent.mean()),
        "reward/unscored_fraction": float(np.isnan(totals).mean()),
    }
    for name, values in zip(table.names, table.values.T, strict=True):
        metrics[f"reward/{name}"] = _mean(values)
    return metrics


def _mean(values: Float[np.ndarray, " B"]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _std(values: Float[np.ndarray, " n"]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
