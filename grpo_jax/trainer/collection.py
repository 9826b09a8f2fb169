"""The groups of a step: prompts are completed and scored until enough of them teach.

A group whose completions are all right, or all wrong, has no advantages. It can be left
as it is, left out of the loss, or made up for with groups of other prompts (dynamic
sampling, DAPO, arXiv 2503.14476).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import choices
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.policy import transformer
from grpo_jax.records import Trajectories
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.rollout import groups
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.setup import RolloutStats
from grpo_jax.trainer import expansion, guidance, seeding, stepmetrics
from grpo_jax.trainer.budget_control import NO_CHARGES, Charges
from grpo_jax.trainer.guidance import Given
from grpo_jax.trainer.model import ROLLOUT
from grpo_jax.trainer.position import Position
from grpo_jax.trainer.run import Run, Written
from grpo_jax.trainer.substitutes import Substitute, put_rows, put_totals


class Groups(NamedTuple):
    """Completed and scored prompts; the rows of a prompt are adjacent.

    All but the last three fields are what the policy was asked to write.

    Attributes:
      prompts: one a group.
      trajectories: one a row.
      completions: what the rewards saw of each row.
      rewards: of each row.
      given: what guided rows started from; None without guidance.
      substitutes: what replaces some of the rows in the update.
      expansion: what `expansion.expand` counted.
      seeding: what `seeding.seed` counted.
    """

    prompts: list[EncodedPrompt]
    trajectories: Trajectories
    completions: list[Completion]
    rewards: RewardTable
    given: Given | None
    substitutes: list[Substitute]
    expansion: Counter[str]
    seeding: Counter[str]

    @property
    def totals(self) -> Float[np.ndarray, " B"]:
        """Rewards as the update has them."""
        return put_totals(self.rewards.totals, self.substitutes)


class Collected(NamedTuple):
    """What a step rolled out, and what of it is trained on.

    Attributes:
      groups: all of them, in the order in which they were drawn.
      rows: places of those of the update, in whole groups; always as many.
      trajectories: what is in these places, substitutes included.
      totals: rewards of these rows, less what they pay; NaN where a group is left out
        of the loss.
      charges: what rows pay for what they cost.
      stats: what the sampler did.
    """

    groups: Groups
    rows: Int[np.ndarray, " B"]
    trajectories: Trajectories
    totals: Float[np.ndarray, " B"]
    charges: Charges
    stats: RolloutStats


def collect(
    run: Run, params: transformer.Params, position: Position, step: int
) -> Collected:
    """Returns the groups of a step; `position` moves on by the prompts it drew.

    Args:
      run: what the configuration built.
      params: weights of the policy.
      position: of the run.
      step: from 1.
    """
    config = run.config.rollout
    # The sampler's copy of the weights lives in here only: gone before the update.
    with position.timer("rollout"):
        at = run.session(
            run.model.rollout_setup(),
            run.model.rollout_view(params),
            sampling=Sampling.of(config.sampling),
            key=run.model.key(ROLLOUT),
            step=step,
        )
    parts = [_complete(run, at, next(position.stream), position, step)]
    teach = _teaches(run, parts[0])
    if config.zero_variance is choices.ZeroVariance.REFILL:
        most = math.floor(config.prompts_per_step * (1 + config.max_refills))
        while count := _missing(teach, config.prompts_per_step, most):
            seen = [prompt.example.id for part in parts for prompt in part.prompts]
            prompts = position.stream.take(count, without=seen)
            if not prompts:
                break
            parts.append(_complete(run, at, prompts, position, step))
            teach = np.append(teach, _teaches(run, parts[-1]))
    everything = _join(parts)
    rows, totals = _choose(run, everything, teach)
    charges = NO_CHARGES
    if position.budget:
        charges = position.budget.charge(
            everything.completions,
            everything.trajectories,
            everything.rewards,
            everything.substitutes,
            step,
        )
        totals = totals - charges.of(rows)
    changed = put_rows(everything.trajectories, everything.substitutes)
    trained = jax.tree.map(lambda x: x[rows], changed)
    return Collected(everything, rows, trained, totals, charges, at.stats)


def _complete(
    run: Run, at: Session, prompts: list[EncodedPrompt], position: Position, step: int
) -> Groups:
    """Completes and scores a group of every prompt, and finds what replaces rows."""
    guide, limit, given = position.guide, position.stages.limit, None
    written = Written([], [], None)
    with position.timer("rollout"):
        if guide:
            trajectories, given = guidance.roll_out(
                run, guide, at, prompts, step, limit
            )
        else:
            size = run.config.rollout.group_size
            budget = position.budget
            calls = budget.max_calls(step) if budget else None
            exits = run.config.budget.exit_in_training
            written = run.write(at, prompts, size, limit, calls, probe=exits)
            trajectories = at.trajectories(written.rows)
    with position.timer("reward"):
        completions = groups.completions(
            trajectories, prompts, run.model.tokenizer, limit, written.turns
        )
        rewards = scoring.score(completions, run.rewards)
    better, ledger, seeded, counts = [], Counter(), [], Counter()
    if run.config.expansion.continuations:
        better, ledger = expansion.expand(
            run, at, written, prompts, completions, rewards.totals, position.timer
        )
    if run.config.experts.below:
        totals = put_totals(rewards.totals, better)
        seeded, counts = seeding.seed(run, prompts, totals, limit)
    substitutes = better + seeded
    return Groups(
        prompts, trajectories, completions, rewards, given, substitutes, ledger, counts
    )


def _teaches(run: Run, part: Groups) -> Bool[np.ndarray, " N"]:
    """Returns which groups are to be trained on."""
    config = run.config.rollout
    if config.zero_variance is choices.ZeroVariance.KEEP:
        return np.ones(len(part.prompts), bool)
    column = part.rewards.names.index(config.variance_reward)
    values = part.rewards.values[:, column].copy()
    for each in part.substitutes:
        values[each.place] = each.values[column]
    return ~stepmetrics.groups_agree(values, config.group_size)


def _missing(teach: Bool[np.ndarray, " N"], wanted: int, most: int) -> int:
    """Returns how many prompts to draw: likely to fill up, within what is allowed."""
    short = wanted - int(teach.sum())
    likely = max(teach.mean(), 1 / len(teach))
    return max(0, min(math.ceil(short / likely), wanted, most - len(teach)))


def _choose(
    run: Run, everything: Groups, teach: Bool[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Returns the rows of the update and their totals.

    The first groups that teach are taken. Where they are too few, others take the
    places that are left, without a reward, so that shapes do not change.
    """
    config = run.config.rollout
    taken = np.argsort(~teach, kind="stable")[: config.prompts_per_step]
    taken.sort()
    rows = (taken[:, None] * config.group_size + np.arange(config.group_size)).ravel()
    silent = np.repeat(~teach[taken], config.group_size)
    return rows, np.where(silent, np.nan, everything.totals[rows])


def _join(parts: Sequence[Groups]) -> Groups:
    """Returns groups one after the other."""
    if len(parts) == 1:
        return parts[0]
    tables = [part.rewards for part in parts]
    completions, substitutes, first = [], [], 0
    for part in parts:
        rows = len(completions)
        completions += [_later(each, first) for each in part.completions]
        substitutes += [
            each._replace(
                place=rows + each.place, completion=_later(each.completion, first)
            )
            for each in part.substitutes
        ]
        first += len(part.prompts)
    given = [part.given for part in parts if part.given]
    return Groups(
        prompts=[prompt for part in parts for prompt in part.prompts],
        trajectories=jax.tree.map(
            lambda *each: np.concatenate(each), *[part.trajectories for part in parts]
        ),
        completions=completions,
        rewards=RewardTable(
            tables[0].names,
            np.concatenate([each.values for each in tables]),
            np.concatenate([each.totals for each in tables]),
        ),
        given=guidance.join(given) if given else None,
        substitutes=substitutes,
        expansion=sum((part.expansion for part in parts), Counter()),
        seeding=sum((part.seeding for part in parts), Counter()),
    )


def _later(completion: Completion, groups: int) -> Completion:
    """Returns a completion whose group comes after `groups` others."""
    return dataclasses.replace(completion, group=groups + completion.group)
