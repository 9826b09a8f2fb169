"""The names of the metrics that steps of a run have: what `config.monitor` may name.

A test compares the lists with what runs write.
"""

import difflib
from collections.abc import Iterable

from grpo_jax import choices
from grpo_jax.config import MonitorConfig, TrainConfig
from grpo_jax.rewards.search import WATCHED
from grpo_jax.trainer.episode_metrics import ACTIONS, MOST_HOPS, RIGHT

_ALWAYS = {
    "compile": "programs seconds",
    "loss": "total",
    "optimizer": "gradient_norm learning_rate skipped",
    "policy": "clip_fraction entropy ratio_max ratio_min ratio_p99 sampler_gap_max "
    "sampler_gap_mean sampler_gap_p99",
    "reward": "advantage_std length_correlation length_correlation_in_group mean "
    "std_in_group unscored_fraction zero_variance_fraction",
    "rollout": "completion_tokens_max completion_tokens_mean effective_groups "
    "finished_tokens_mean generated_tokens gigabytes_per_second groups kept_mass_min "
    "limit_tokens prefill_padding_fraction "
    "repeated_fraction script_fraction tier_mean tokens_per_second "
    "truncated_fraction useful_fraction",
    "time": "host_fraction reward_seconds rollout_seconds step_seconds update_seconds",
    "trainer": "padding_fraction teraflops_per_second tokens_per_second",
}
_OF_KNOWN_DEVICES = {
    "rollout": "bandwidth_fraction",
    "trainer": "model_flops_fraction",
}
_OF_BUILTIN_CHECKS = {"reward": "errors timeouts"}
_WITH_ACCURACY = {"reward": "all_right_fraction all_wrong_fraction"}
_WITH_KL = {"loss": "kl kl_max kl_p95"}
_WITH_GUIDANCE = {
    "guidance": "at_bound clip_fraction entropy exhausted_fraction "
    "generated_tokens_mean given_tokens_mean guided_fraction length length_ratio nll "
    "no_trace_fraction rescued_fraction reward_gap reward_guided reward_unguided "
    "signal trace_share"
}
_WITH_EPISODES = {
    "episode": "calls_max calls_mean failed_fraction malformed_fraction "
    "near_duplicate_fraction new_document_fraction no_call_fraction refused_fraction "
    "repeated_query_fraction",
}
_WITH_HOPS = {
    "episode": "calls_hops_spearman coverage_mean over_search_fraction "
    "surplus_call_fraction useful_call_fraction"
}
_WITH_EXPERTS = {"expert": "nll seeded_fraction too_long_fraction unknown_fraction"}
_WITH_EASY = {"rollout": "easy_fraction"}
_WITH_IMPORTANCE = {"expert": "clip_fraction ratio_mean"}
_WITH_REPLAY = {"expert": "coverage_mean failed_fraction"}
_WITH_EXPANSION = {
    "expansion": "continuations expanded_fraction found_more_fraction generated_tokens "
    "replaced_fraction"
}
_WITH_COSTS = {"budget": "beta cost_mean over_fraction penalty_mean right_cost_mean"}
_WITH_DEPTH = {"budget": "calls_above_evidence calls_below_evidence"}
_WITH_REDUNDANCY = {
    "budget": "near_duplicate_fraction redundancy_penalty_mean redundant_fraction "
    "stale_call_fraction"
}
_WITH_SEARCH = {"retrieval": "asked cache_hits failures queries seconds"}
_WITH_EVALUATION = {
    "evaluation": "completion_tokens_mean greedy",
    "time": "evaluation_seconds",
}


def of_run(config: TrainConfig) -> set[str]:
    """Returns every metric that a step of this run can have.

    Counts of a task or an environment of the user's own are not among them.
    """
    groups = [_ALWAYS, _OF_KNOWN_DEVICES]
    names: set[str] = set()
    if config.task.name in ("math", "code"):
        groups.append(_OF_BUILTIN_CHECKS)
    if config.objective.kl_coef:
        groups.append(_WITH_KL)
    if config.rollout.easy_fraction:
        groups.append(_WITH_EASY)
    if config.guidance.fraction:
        groups.append(_WITH_GUIDANCE)
        if config.objective.kl_coef:
            names.add("guidance/kl")
    if config.episode.environment:
        groups.append(_WITH_EPISODES)
        names |= _of_episodes(config)
        if _knows_hops(config):
            groups.append(_WITH_HOPS)
    if config.experts.below:
        groups.append(_WITH_EXPERTS)
        if config.experts.loss is choices.ExpertLoss.IMPORTANCE:
            groups.append(_WITH_IMPORTANCE)
        if config.experts.replay:
            groups.append(_WITH_REPLAY)
    if config.expansion.continuations:
        groups.append(_WITH_EXPANSION)
    if config.budget.measures_costs:
        groups.append(_WITH_COSTS)
    if config.budget.free_by_evidence:
        groups.append(_WITH_DEPTH)
    if config.budget.measures_redundancy:
        groups.append(_WITH_REDUNDANCY)
    if config.budget.first_calls:
        names.add("budget/max_calls")
    if config.budget.exit_in_training:
        names |= {"budget/exit_fraction", "budget/probe_tokens"}
    if config.episode.environment == "search":
        groups.append(_WITH_SEARCH)
    if config.evaluation.every_steps:
        groups.append(_WITH_EVALUATION)
        for k in range(config.evaluation.samples.bit_length()):
            name = f"evaluation/pass@{2**k}"
            names |= {name, f"{name}_standard_error"}
        if _knows_hops(config):
            names |= {f"evaluation/{name}" for name in WATCHED}
    if "accuracy" in config.reward.weights:
        groups.append(_WITH_ACCURACY)
    for reward in config.reward.weights:
        names |= {f"reward/{reward}", f"reward_std_in_group/{reward}"}
    for group in groups:
        names |= {f"{area}/{each}" for area in group for each in group[area].split()}
    return names


def _of_episodes(config: TrainConfig) -> set[str]:
    """Returns names that follow `episode.max_calls`, the task and the rewards."""
    turns = range(1, config.episode.max_calls + 1)
    names = {f"{action}_turn_{turn}" for action in ACTIONS for turn in turns}
    judged = not config.reward.weights.keys().isdisjoint(RIGHT)
    if judged:
        names |= {f"right_calls_{count}" for count in (0, *turns)}
    if _knows_hops(config):
        names |= {f"gain_turn_{turn}" for turn in turns}
        by_hops = ("calls", "tokens", *(["right"] if judged else []))
        hops = range(1, MOST_HOPS + 1)
        names |= {f"{name}_hops_{count}" for name in by_hops for count in hops}
        if judged:
            names.add("premature_stop_fraction")
    return {f"episode/{name}" for name in names}


def _knows_hops(config: TrainConfig) -> bool:
    """Whether questions say which documents they need; a user's own may."""
    return config.task.name in ("world", "multihop") or ":" in config.task.name


def check(config: TrainConfig) -> None:
    """Checks what can be checked of a configuration before anything is built.

    A task of the user's own may count what it likes; what is then unknown is checked
    by `check_known` once there is a step.

    Raises:
      ValueError: `config.monitor` names a metric that no step will have.
    """
    if ":" not in config.task.name + config.episode.environment:
        check_known(config.monitor, of_run(config))


def check_known(config: MonitorConfig, known: Iterable[str]) -> None:
    """Checks every name in the rules.

    Raises:
      ValueError: one is not known; says which ones are near.
    """
    known = sorted(known)
    for field, bounds in (
        ("warn_above", config.warn_above),
        ("warn_below", config.warn_below),
        ("stop_above", config.stop_above),
        ("stop_below", config.stop_below),
    ):
        for name in bounds:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(map(repr, near))}?"
                raise ValueError(
                    f"config.monitor.{field} names {name!r}, which no step of this "
                    f"run has; {hint if near else f'there are {known}'}"
                )
