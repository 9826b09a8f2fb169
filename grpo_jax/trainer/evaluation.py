"""Held-out accuracy: several samples a problem, and one greedy completion."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.policy import transformer
from grpo_jax.reporting import terminal
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion
from grpo_jax.rollout import groups
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.trainer import (
    breakdown,
    early_exit,
    episode_metrics,
    statistics,
    token_costs,
)
from grpo_jax.trainer.journal import Journal
from grpo_jax.trainer.model import EVALUATION
from grpo_jax.trainer.run import Run


@dataclasses.dataclass(frozen=True)
class Graded:
    """Completions of every problem and their accuracy, NaN where it was not graded."""

    prompts: Sequence[EncodedPrompt]
    completions: list[Completion]
    rewards: scoring.RewardTable
    accuracy: Float[np.ndarray, "N k"]


def problems(run: Run, split: str) -> list[EncodedPrompt]:
    """Returns the prompts of "validation" or "test", as many as configured.

    Those longer than `max_prompt_tokens` are left out, and that is said.
    """
    limit = getattr(run.config.evaluation, f"{split}_problems")
    examples = getattr(run.task, split)[: limit or None]
    prompts = run.model.encode(examples)
    if len(prompts) < len(examples):
        terminal.say(
            f"{len(examples) - len(prompts)} of {len(examples)} {split} prompts have "
            f"more than {run.config.rollout.max_prompt_tokens} tokens and are left out"
        )
    return prompts


def evaluate(
    run: Run,
    view: transformer.Params,
    prompts: Sequence[EncodedPrompt],
    *,
    name: str,
    split: str,
    step: int,
    seed: int = 0,
    journal: Journal | None = None,
) -> tuple[dict[str, Any], Graded]:
    """Evaluates a policy on problems; the noise is the same for every policy.

    Args:
      run: what the configuration built.
      view: weights for decoding.
      prompts: the problems.
      name: what the evaluation is called.
      split: where the problems come from, for the record.
      step: the policy's step, for the record.
      seed: another one gives other completions.
      journal: keeps sampled completions as they are made; None keeps none.

    Returns:
      What evaluation/NAME.json holds, and the graded samples.
    """
    config = run.config.evaluation
    sampling = Sampling.of(config.sampling)
    sampled = grade(
        run, view, prompts, sampling, config.samples, seed=seed, journal=journal
    )
    greedy = None
    if config.greedy:
        greedy = grade(run, view, prompts, Sampling(temperature=0.0), 1)
    shape = sampled.accuracy.shape
    tokens = np.array([each.num_tokens for each in sampled.completions]).reshape(shape)
    finished = np.array([each.finished for each in sampled.completions]).reshape(shape)
    limit = config.max_completion_tokens or run.config.rollout.max_completion_tokens
    result = {
        "name": name,
        "split": split,
        "step": step,
        "problems": len(prompts),
        "samples": config.samples,
        "sampling": dataclasses.asdict(sampling),
        "max_completion_tokens": limit,
        # pass@1 is the mean over all samples, also called avg@k.
        "sampled": _passes(sampled.accuracy, config.confidence),
        "greedy": _passes(greedy.accuracy, config.confidence) if greedy else None,
        **breakdown.means(sampled.completions, sampled.rewards, np.arange(tokens.size)),
        "tokens_mean": token_costs.token_means(tokens, sampled.accuracy, finished),
        "accuracy_by_length": token_costs.accuracy_by_length(
            tokens, sampled.accuracy, limit
        ),
        "truncated_fraction": 1 - float(np.mean(finished)),
        "ungraded_fraction": float(np.isnan(sampled.accuracy).mean()),
        **run.task.take_counts(),
    }
    if watched := _watched(run, sampled):
        result["watched"] = watched
    if run.environment:
        result["episode"] = _episodes(run, sampled)
    parts = breakdown.by_part(
        [prompt.example for prompt in prompts],
        sampled.completions,
        sampled.rewards,
        sampled.accuracy,
        greedy.accuracy if greedy else None,
        config.confidence,
    )
    if parts:
        result["by"] = parts
    if run.environment:
        run.environment.take_metrics()  # a step counts its own queries
    if run.config.budget.probe_tokens:
        result["early_exit"] = early_exit.summary(
            sampled.completions, sampled.accuracy.ravel(), run.config.budget
        )
    return result, sampled


def headline(result: dict[str, Any]) -> dict[str, float]:
    """Returns what a step's metrics take from an evaluation."""
    metrics = {}
    for name, interval in result["sampled"].items():
        metrics[f"evaluation/{name}"] = interval["mean"]
        error = interval["standard_error"]
        metrics[f"evaluation/{name}_standard_error"] = error
    if result["greedy"]:
        metrics["evaluation/greedy"] = result["greedy"]["pass@1"]["mean"]
    for name, interval in result.get("watched", {}).items():
        metrics[f"evaluation/{name}"] = interval["mean"]
    metrics["evaluation/completion_tokens_mean"] = result["completion_tokens_mean"]
    return metrics


def grade(
    run: Run,
    view: transformer.Params,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    samples: int,
    *,
    seed: int = 0,
    journal: Journal | None = None,
) -> Graded:
    """Samples completions of every problem and scores them with the run's rewards."""
    setup = run.model.rollout_setup(run.config.evaluation.max_completion_tokens)

    def complete(some: Sequence[EncodedPrompt]) -> list[Completion]:
        at = run.session(
            setup, view, sampling=sampling, key=run.model.key(EVALUATION), step=seed
        )
        written = run.write(at, some, samples, probe=True)
        return groups.completions(
            at.trajectories(written.rows),
            some,
            run.model.tokenizer,
            setup.max_completion_tokens,
            written.turns,
        )

    if journal:
        completions = journal.fill(prompts, samples, setup.max_rows, complete)
    else:
        completions = complete(prompts)
    # Accuracy is what is evaluated, whether or not the run trains on it.
    looked_at = ("accuracy", *run.task.watched)
    rewards = {name: (1.0, run.task.rewards[name]) for name in looked_at} | run.rewards
    # The verifier's deadline is for a batch of training; this may be many.
    count = max(1, setup.max_rows // samples) * samples
    tables = [
        scoring.score(completions[first : first + count], rewards)
        for first in range(0, len(completions), count)
    ]
    table = scoring.RewardTable(
        tables[0].names,
        np.concatenate([each.values for each in tables]),
        np.concatenate([each.totals for each in tables]),
    )
    accuracy = table.values[:, table.names.index("accuracy")]
    return Graded(prompts, completions, table, accuracy.reshape(len(prompts), samples))


def _passes(
    accuracy: Float[np.ndarray, "N k"], confidence: float
) -> dict[str, dict[str, float]]:
    """Returns pass@1, pass@2, pass@4, ... up to the samples, and their bounds."""
    samples = accuracy.shape[1]
    ks = [1 << power for power in range(samples.bit_length())]
    return {
        f"pass@{k}": statistics.mean_with_interval(
            statistics.pass_at_k(accuracy, k), confidence
        )
        for k in ks
    }


def _watched(run: Run, graded: Graded) -> dict[str, dict[str, float]]:
    """Returns the rewards that the task watches, as means of problems with intervals.

    Without those that no problem has, such as evidence that is not known.
    """
    found = {}
    for name in run.task.watched:
        values = graded.rewards.values[:, graded.rewards.names.index(name)]
        means = statistics.mean_of_samples(values.reshape(graded.accuracy.shape))
        if not np.isnan(means).all():
            confidence = run.config.evaluation.confidence
            found[name] = statistics.mean_with_interval(means, confidence)
    return found


def _episodes(run: Run, graded: Graded) -> dict[str, float]:
    """Returns the metrics of episodes, without the area in their names."""
    found = episode_metrics.metrics(
        graded.completions, graded.accuracy.ravel(), run.config.episode.max_calls
    )
    return {name.removeprefix("episode/"): value for name, value in found.items()}
