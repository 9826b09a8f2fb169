"""Metrics of a step that show how training goes wrong, beside those of the loss.

All on the host, from texts, lengths and rewards. What each is for: docs/monitors.md.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from grpo_jax.config import TrainConfig
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.language import script_fraction
from grpo_jax.rewards.repetition import repeated_fraction
from grpo_jax.rewards.scoring import RewardTable


def metrics(
    completions: Sequence[Completion], table: RewardTable, config: TrainConfig
) -> dict[str, float]:
    """Returns the monitors of a step; NaN where one has nothing to say.

    Args:
      completions: B = N*G rows, those of a group adjacent.
      table: their rewards.
      config: the size of a group, the script and the n-grams.
    """
    return (
        text_metrics(completions, config)
        | spread_metrics(table, config.rollout.group_size)
        | length_metrics(completions, table, config.rollout.group_size)
    )


def text_metrics(
    completions: Sequence[Completion], config: TrainConfig
) -> dict[str, float]:
    """Returns means over completions of what the language and repetition rewards see.

    They are computed whether or not these rewards are configured, with the parameters
    of `config.reward`.
    """
    script, ngram = config.reward.language.script, config.reward.repetition.ngram
    letters = [script_fraction(each.text, script) for each in completions]
    repeated = [repeated_fraction(each.text, ngram) for each in completions]
    return {
        "rollout/script_fraction": float(np.mean(letters)),
        "rollout/repeated_fraction": float(np.mean(repeated)),
    }


def spread_metrics(table: RewardTable, group_size: int) -> dict[str, float]:
    """Returns the spread of each reward in its groups, and groups of one verdict.

    The spread is the unbiased standard deviation, averaged over the groups in which the
    reward gave at least two values. All right, or all wrong, is a group whose known
    accuracies are all 1, or all 0; the fraction is of groups with a known one.
    """
    found = {}
    for name, values in zip(table.names, table.values.T, strict=True):
        groups = [_known(group) for group in values.reshape(-1, group_size)]
        spread = [group.std(ddof=1) for group in groups if len(group) > 1]
        found[f"reward_std_in_group/{name}"] = _mean(spread)
        if name == "accuracy":
            groups = [group for group in groups if len(group)]
            right = [float((group == 1).all()) for group in groups]
            wrong = [float((group == 0).all()) for group in groups]
            found["reward/all_right_fraction"] = _mean(right)
            found["reward/all_wrong_fraction"] = _mean(wrong)
    return found


def length_metrics(
    completions: Sequence[Completion], table: RewardTable, group_size: int
) -> dict[str, float]:
    """Returns Pearson correlations of the total reward with the length in tokens.

    Over all rows hard prompts, which are long and rarely right, make it negative. In
    groups, rewards and lengths are taken as differences from the means of their group,
    so that only what a prompt's own completions say remains.
    """
    rewards = table.totals.reshape(-1, group_size)
    lengths = np.array([each.num_tokens for each in completions], np.float64)
    lengths = np.where(np.isnan(rewards), np.nan, lengths.reshape(-1, group_size))
    return {
        "reward/length_correlation": _correlation(rewards, lengths),
        "reward/length_correlation_in_group": _correlation(
            _centred(rewards), _centred(lengths)
        ),
    }


def _centred(groups: Float[np.ndarray, "N G"]) -> Float[np.ndarray, "N G"]:
    """Returns differences from the mean of what is known of each group."""
    known = ~np.isnan(groups)
    sums = np.where(known, groups, 0).sum(axis=1, keepdims=True)
    return groups - sums / np.maximum(known.sum(axis=1, keepdims=True), 1)


def _correlation(a: Float[np.ndarray, "N G"], b: Float[np.ndarray, "N G"]) -> float:
    """Returns Pearson's r of the entries that are known; NaN without any spread."""
    a, b = _known(a), _known(b)
    if len(a) < 2:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    # Differences of equal numbers such as .1 leave rounding errors, not a spread.
    spread = min(np.abs(a).max(), np.abs(b).max()) > 1e-9
    return float((a * b).sum() / scale) if spread else float("nan")


def _known(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, " n"]:
    return values[~np.isnan(values)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
