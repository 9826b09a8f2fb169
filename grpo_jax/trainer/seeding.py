"""Expert seeding: a group in which nothing is good gets what an expert did.

The expert's row takes the place of the group's worst one in the update.

Source: David-GRPO (arXiv 2601.21699), "expert bootstrapping".
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.tags import tag_set
from grpo_jax.tasks import experts
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
      The rows, and for how many groups there was one, or why there was none.
    """
    size = len(totals) // len(prompts)
    counts = Counter[str]()
    seeded = []
    for group, prompt in enumerate(prompts):
        of_group = totals[group * size : (group + 1) * size]
        if np.isnan(of_group).all() or np.nanmax(of_group) >= run.config.experts.below:
            continue
        if prompt.example.id not in run.task.experts:
            counts["unknown"] += 1
            continue
        # Rows without a reward teach nothing: they go first.
        worst = group * size + int(np.argmin(np.nan_to_num(of_group, nan=-np.inf)))
        row = _row(run, prompt, group, worst)
        if row.completion.num_tokens > limit:
            counts["too_long"] += 1
            continue
        counts["seeded"] += 1
        seeded.append(row)
    return seeded, counts


def metrics(counts: Counter[str], groups: int) -> dict[str, float]:
    """Returns the share of each count of `seed` among all groups of a step."""
    names = ("seeded", "unknown", "too_long")
    return {f"expert/{name}_fraction": counts[name] / groups for name in names}


def _row(run: Run, prompt: EncodedPrompt, group: int, place: int) -> Substitute:
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
    completion = Completion(
        prompt=prompt.text,
        text=run.model.tokenizer.decode(tokens),
        reference=prompt.example.reference,
        num_tokens=len(tokens),
        finished=True,
        group=group,
        columns=prompt.example.columns,
        max_tokens=run.config.rollout.max_completion_tokens,
        turns=experts.record(tags, turns),
    )
    table = scoring.score([completion], run.rewards)
    return Substitute(
        place,
        _trajectory(run, prompt.tokens, tokens, origins),
        completion,
        table.values[0],
        run.config.experts.reward or float(table.totals[0]),
        "written by an expert",
    )


def _trajectory(
    run: Run, prompt: Sequence[int], tokens: Sequence[int], origins: Sequence[int]
) -> Trajectories:
    """Returns the row of a prompt and a completion, as wide as all others."""
    columns = run.model.rollout_setup().columns
    start, end = len(prompt), len(prompt) + len(tokens)
    said, codes = np.zeros((1, columns), np.int32), np.zeros((1, columns), np.uint8)
    # What does not fit is cut: the caller does not use it.
    said[0, :end] = [*prompt, *tokens][:columns]
    codes[0, :end] = [*[Origin.PROMPT] * start, *origins][:columns]
    return Trajectories(
        tokens=said,
        origins=codes,
        behavior_log_probs=np.zeros((1, columns), np.float32),
        kept_log_mass=np.zeros((1, columns), np.float32),
        prompt_lengths=np.array([start], np.int32),
        lengths=np.array([min(end, columns)], np.int32),
        finished=np.ones(1, bool),
    )
