"""What a step's rollout and rewards say, as metrics."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax.config import RolloutConfig, TrainConfig
from grpo_jax.data.mixed_prompts import is_easy
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.records import Trajectories
from grpo_jax.rewards.scoring import RewardTable


def rollout_metrics(
    trajectories: Trajectories, prompts: Sequence[EncodedPrompt], sampled: int
) -> dict[str, int | float]:
    """Returns what was generated from which tiers, and its lengths and truncation.

    Args:
      trajectories: all that was rolled out.
      prompts: one a group.
      sampled: tokens drawn for the step, continuations of rows included.
    """
    tokens = trajectories.lengths - trajectories.prompt_lengths
    finished = trajectories.finished
    ended = tokens[finished]
    return {
        "rollout/generated_tokens": sampled,
        "rollout/tier_mean": float(np.mean([each.example.tier for each in prompts])),
        "rollout/completion_tokens_mean": float(tokens.mean()),
        "rollout/completion_tokens_max": int(tokens.max()),
        "rollout/finished_tokens_mean": float(ended.mean()) if len(ended) else np.nan,
        "rollout/truncated_fraction": 1 - float(finished.mean()),
        "rollout/kept_mass_min": float(np.exp(trajectories.kept_log_mass.min())),
    }


def easy_metrics(
    prompts: Sequence[EncodedPrompt], config: RolloutConfig
) -> dict[str, float]:
    """Returns the share of easy ones among all prompts of a step, if there is one."""
    if not config.easy_fraction:
        return {}
    easy = [is_easy(prompt.example, config.easy_hops) for prompt in prompts]
    return {"rollout/easy_fraction": float(np.mean(easy))}


def reward_metrics(
    table: RewardTable, advantages: Float[np.ndarray, " B"], config: TrainConfig
) -> dict[str, float]:
    """Returns means of every reward and how much the groups disagree within.

    A group whose rewards are all equal teaches nothing; `zero_variance_fraction` counts
    them among all that were rolled out, `effective_groups` those of the update that do
    teach.

    Args:
      table: rewards of all rows that were rolled out.
      advantages: of the rows of the update.
      config: of the run.
    """
    totals, group_size = table.totals, config.rollout.group_size
    groups = totals.reshape(-1, group_size)
    spread = [_std(group[~np.isnan(group)]) for group in groups]
    teaches = (advantages.reshape(-1, group_size) != 0).any(axis=1)
    metrics = {
        "reward/mean": _mean(totals),
        "reward/std_in_group": float(np.mean(spread)),
        "reward/zero_variance_fraction": float(groups_agree(totals, group_size).mean()),
        "reward/advantage_std": float(np.std(advantages)),
        "rollout/groups": len(groups),
        "rollout/effective_groups": int(teaches.sum()),
        "reward/unscored_fraction": float(np.isnan(totals).mean()),
    }
    for name, values in zip(table.names, table.values.T, strict=True):
        metrics[f"reward/{name}"] = _mean(values)
    return metrics


def guidance_metrics(
    counts: Int[np.ndarray, " B"],
    *,
    signal: Float[np.ndarray, " B"],
    totals: Float[np.ndarray, " B"],
    generated: Int[np.ndarray, " B"],
    trace_lengths: Int[np.ndarray, " N"],
    limits: Int[np.ndarray, " N"],
    length: int,
) -> dict[str, float]:
    """Returns what guidance gave and what came of it; NaN where no row is guided.

    A group is rescued whose unguided rows agree, so that they alone would teach
    nothing, while all of its rows do not.

    Args:
      counts: tokens of a trace that each row started from.
      signal: the reward that guidance follows, NaN where there is none.
      totals: weighted rewards, NaN where there is none.
      generated: tokens that each row's policy wrote.
      trace_lengths: tokens of the whole traces, one a prompt.
      limits: most tokens of them that may be given.
      length: tokens that were to be given.
    """
    guided = counts > 0
    group_size = len(counts) // len(limits)
    silent = groups_agree(np.where(guided, np.nan, totals), group_size)
    taught = ~groups_agree(totals, group_size)
    lengths, most = (np.repeat(x, group_size)[guided] for x in (trace_lengths, limits))
    reward, unguided = _mean(signal[guided]), _mean(signal[~guided])
    return {
        "guidance/guided_fraction": float(guided.mean()),
        "guidance/given_tokens_mean": _mean(counts[guided].astype(float)),
        "guidance/generated_tokens_mean": _mean(generated[guided].astype(float)),
        "guidance/trace_share": _mean(counts[guided] / lengths),
        "guidance/exhausted_fraction": _mean((most < length).astype(float)),
        "guidance/no_trace_fraction": float((limits == 0).mean()),
        "guidance/reward_guided": reward,
        "guidance/reward_unguided": unguided,
        "guidance/reward_gap": reward - unguided,
        "guidance/rescued_fraction": float((silent & taught).mean()),
    }


def _mean(values: Float[np.ndarray, " B"]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def groups_agree(
    values: Float[np.ndarray, " B"], group_size: int
) -> Bool[np.ndarray, " N"]:
    """Returns for each group whether all that is known, not NaN, is equal.

    Compared, since the standard deviation of equal numbers need not be 0.
    """
    groups = values.reshape(-1, group_size)
    known = [group[~np.isnan(group)] for group in groups]
    return np.array([bool((each == each[:1]).all()) for each in known])


def _std(values: Float[np.ndarray, " n"]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
