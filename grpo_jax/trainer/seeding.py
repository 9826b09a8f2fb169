"""Expert seeding: a group in which nothing is good gets what an expert did.

The expert's row takes the place of the group's worst one in the update.

Source: David-GRPO (arXiv 2601.21699), "expert bootstrapping".
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from grpo_jax.config import ExpertsConfig
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.rewards import evidence, scoring
from grpo_jax.rewards.base import Completion
from grpo_jax.trainer import expert_rows
from grpo_jax.trainer.expert_rows import ExpertRow
from grpo_jax.trainer.run import Run
from grpo_jax.trainer.substitutes import Substitute


def seed(
    run: Run,
    prompts: Sequence[EncodedPrompt],
    totals: Float[np.ndarray, " B"],
    limit: int,
) -> tuple[list[Substitute], Counter[str]]:
    """Returns an expert's row for every group whose best reward is too low.

    Args:
      run: whose task knows the experts.
      prompts: of the groups.
      totals: rewards of their rows, those of a group adjacent, NaN where there is none;
        a group without any is left as it is.
      limit: tokens of a completion; what is longer is not used.

    Returns:
      The rows, and for how many groups there was one, or why there was none; also the
      gold documents of their questions, and how many of them the experts were shown.
    """
    size = len(totals) // len(prompts)
    rewards = totals.reshape(-1, size)
    bad = [
        group
        for group, of_group in enumerate(rewards)
        if not np.isnan(of_group).all()
        and np.nanmax(of_group) < run.config.experts.below
    ]
    known = [group for group in bad if prompts[group].example.id in run.task.experts]
    rows = run.expert_rows.of([prompts[group].example for group in known])
    counts, seeded = Counter(unknown=len(bad) - len(known)), []
    for group in known:
        row = rows.get(prompts[group].example.id)
        if row is None:
            counts["failed"] += 1
        elif len(row.tokens) > limit:
            counts["too_long"] += 1
        else:
            # Rows without a reward teach nothing: they go first.
            worst = int(np.argmin(np.nan_to_num(rewards[group], nan=-np.inf)))
            seeded.append(
                _substitute(run, prompts[group], row, group, group * size + worst)
            )
            gold = prompts[group].example.columns.get("evidence") or ()
            counts["gold_documents"] += len(gold)
            counts["found_documents"] += evidence.found(gold, row.turns)
    counts["seeded"] = len(seeded)
    return seeded, counts


def metrics(
    counts: Counter[str], groups: int, config: ExpertsConfig
) -> dict[str, float]:
    """Returns the share of each count of `seed` among all groups of a step.

    Where experts are replayed also which share of the gold documents they found; NaN
    where there were none.
    """
    names = ["seeded", "unknown", "too_long", *(["failed"] if config.replay else [])]
    shares = {f"expert/{name}_fraction": counts[name] / groups for name in names}
    if not config.replay:
        return shares
    gold = counts["gold_documents"]
    found = counts["found_documents"] / gold if gold else math.nan
    return {**shares, "expert/coverage_mean": found}


def _substitute(
    run: Run, prompt: EncodedPrompt, row: ExpertRow, group: int, place: int
) -> Substitute:
    completion = Completion(
        prompt=prompt.text,
        text=run.model.tokenizer.decode(row.tokens),
        reference=prompt.example.reference,
        num_tokens=len(row.tokens),
        finished=True,
        group=group,
        columns=prompt.example.columns,
        max_tokens=run.config.rollout.max_completion_tokens,
        turns=row.turns,
    )
    table = scoring.score([completion], run.rewards)
    return Substitute(
        place,
        expert_rows.trajectory(prompt, row, run.model.rollout_setup().columns),
        completion,
        table.values[0],
        run.config.experts.reward or float(table.totals[0]),
        "written by an expert",
    )
