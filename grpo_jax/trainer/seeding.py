"""Expert seeding: a group in which nothing is good gets what an expert did.

The expert's row takes the place of the group's worst one in the update, and nowhere
else: metrics, monitors and logs speak of what the policy wrote.

Source: David-GRPO (arXiv 2601.21699), "expert bootstrapping".
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.tags import tag_set
from grpo_jax.tasks import experts
from grpo_jax.trainer.run import Run


class Seeded(NamedTuple):
    """The rows of an update, some of which are an expert's.

    Attributes:
      trajectories: of the rows.
      totals: their rewards.
      replaced: which rows are an expert's.
      metrics: how many there are, and why there are no more.
    """

    trajectories: Trajectories
    totals: Float[np.ndarray, " B"]
    replaced: Int[np.ndarray, " E"]
    metrics: dict[str, float]


class _Row(NamedTuple):
    """What an expert did, in tokens."""

    tokens: list[int]
    origins: list[int]
    reward: float


def seed(
    run: Run,
    prompts: Sequence[EncodedPrompt],
    trajectories: Trajectories,
    totals: Float[np.ndarray, " B"],
    limit: int,
) -> Seeded:
    """Puts an expert's row into every group whose best reward is too low.

    Args:
      run: whose task knows the experts.
      prompts: of the groups.
      trajectories: of their rows, those of a group adjacent.
      totals: rewards of the rows, NaN where there is none; a group without any is left
        as it is.
      limit: tokens of a completion; what is longer is not used.
    """
    config = run.config.experts
    rewards = totals.copy()
    changed = jax.tree.map(np.array, trajectories)
    size = len(totals) // len(prompts)
    replaced, unknown, long = [], 0, 0
    for group, prompt in enumerate(prompts):
        of_group = rewards[group * size : (group + 1) * size]
        if np.isnan(of_group).all() or np.nanmax(of_group) >= config.below:
            continue
        if prompt.example.id not in run.task.experts:
            unknown += 1
            continue
        row = _row(run, prompt)
        if len(row.tokens) > limit:
            long += 1
            continue
        # Rows without a reward teach nothing: they go first.
        worst = group * size + int(np.argmin(np.nan_to_num(of_group, nan=-np.inf)))
        _put(changed, worst, row)
        rewards[worst] = row.reward
        replaced.append(worst)
    found = {
        "expert/seeded_fraction": len(replaced) / len(prompts),
        "expert/unknown_fraction": unknown / len(prompts),
        "expert/too_long_fraction": long / len(prompts),
    }
    return Seeded(changed, rewards, np.array(replaced, np.int64), found)


def _row(run: Run, prompt: EncodedPrompt) -> _Row:
    tags = tag_set(run.config.task.tags)
    turns = run.task.experts[prompt.example.id]
    tokens, origins = [], []
    for segment in experts.segments(tags, turns):
        ids = run.model.tokenizer.encode(segment.text)
        tokens += ids
        origin = Origin.OBSERVATION if segment.observed else Origin.EXPERT
        origins += [int(origin)] * len(ids)
    tokens.append(run.model.tokenizer.eos_ids[0])
    origins.append(int(Origin.EXPERT))
    reward = run.config.experts.reward
    if not reward:
        completion = Completion(
            prompt=prompt.text,
            text=run.model.tokenizer.decode(tokens),
            reference=prompt.example.reference,
            num_tokens=len(tokens),
            finished=True,
            group=0,
            columns=prompt.example.columns,
            max_tokens=run.config.rollout.max_completion_tokens,
            turns=experts.record(tags, turns),
        )
        reward = float(scoring.score([completion], run.rewards).totals[0])
    return _Row(tokens, origins, reward)


def _put(trajectories: Trajectories, row: int, expert: _Row) -> None:
    """Makes a row an expert's, behind its prompt."""
    start = int(trajectories.prompt_lengths[row])
    end = start + len(expert.tokens)
    trajectories.tokens[row, start:] = 0
    trajectories.tokens[row, start:end] = expert.tokens
    trajectories.origins[row, start:] = Origin.PAD
    trajectories.origins[row, start:end] = expert.origins
    for values in (trajectories.behavior_log_probs, trajectories.kept_log_mass):
        values[row] = 0
    trajectories.lengths[row] = end
    trajectories.finished[row] = True
