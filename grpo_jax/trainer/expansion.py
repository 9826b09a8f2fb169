"""Grounded expansion: a group goes on from the evidence that its best row found.

    best row   turn, documents, turn, documents | turn, documents, turn: wrong
    n more     turn, documents, turn, documents | other turns

The cut is behind the first reply after which the best row had been shown as many of the
gold documents as it ever was. The best continuation takes the place of the group's
worst row in the update, if its reward is above that of every row.

Source: David-GRPO (arXiv 2601.21699), and its released program, which cuts at the best
coverage where the paper cuts at the best reward. Different from it: rows of equal
reward are told apart by what they found and by their calls (of a group in which all is
0 it takes the first), and tokens are copied, not text.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.evidence import Evidence, coverage, evidence_of
from grpo_jax.rollout import groups
from grpo_jax.rollout.session import Session
from grpo_jax.trainer.metrics import StepTimer
from grpo_jax.trainer.run import Run, Written
from grpo_jax.trainer.substitutes import Substitute


class Branch(NamedTuple):
    """Where a group goes on.

    Attributes:
      group: its number.
      best: place of the row to go on from.
      worst: place of the row to be replaced.
      replies: of the best row that are kept.
    """

    group: int
    best: int
    worst: int
    replies: int


def expand(
    run: Run,
    session: Session,
    written: Written,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Completion],
    totals: Float[np.ndarray, " B"],
    timer: StepTimer,
) -> tuple[list[Substitute], Counter[str]]:
    """Continues groups and returns the continuations that are better than all rows.

    Args:
      run: what the configuration built.
      session: in which the rows were written.
      written: the rows, those of a group adjacent.
      prompts: one a group.
      completions: of the rows.
      totals: rewards of the rows; NaN where there is none.
      timer: of the run.

    Returns:
      What replaces rows, and the ledger: groups that went on, continuations, the tokens
      that were sampled for them, and how many found more than their group had.
    """
    config = run.config.expansion
    size = run.config.rollout.group_size
    plans = plan(completions, totals, size, config.below, config.min_coverage)
    ledger = Counter(groups=len(plans))
    if not plans:
        return [], ledger
    assert written.conversation, "only episodes are continued"
    sampled = session.stats.sampled_tokens
    with timer("rollout"):
        conversation, rows = written.conversation, written.rows
        new = [
            conversation.branch(rows[each.best], each.replies, sample=size + number)
            for each in plans
            for number in range(config.continuations)
        ]
        conversation.run()
    ledger["continuations"] = len(new)
    ledger["tokens"] = session.stats.sampled_tokens - sampled
    with timer("reward"):
        again = groups.completions(
            session.trajectories(new),
            [prompts[each.group] for each in plans],
            run.model.tokenizer,
            completions[0].max_tokens,
            list(map(conversation.turns, new)),
        )
        table = scoring.score(again, run.rewards)
    better = []
    for number, each in enumerate(plans):
        first = number * config.continuations
        of_group = slice(first, first + config.continuations)
        chosen = first + int(_order(again[of_group], table.totals[of_group])[0])
        more = _coverage(again[chosen]) > _coverage(completions[each.best])
        ledger["found_more"] += more
        if not table.totals[chosen] > totals[each.best]:
            continue
        row = session.trajectories([new[chosen]])
        if config.mask_prefix:
            _mask(row, conversation.copied(new[chosen]))
        better.append(
            Substitute(
                each.worst,
                row,
                dataclasses.replace(again[chosen], group=each.group),
                table.values[chosen],
                float(table.totals[chosen]),
                f"goes on from sample {each.best % size}, {each.replies} replies on",
            )
        )
    ledger["replaced"] = len(better)
    return better, ledger


def plan(
    completions: Sequence[Completion],
    totals: Float[np.ndarray, " B"],
    group_size: int,
    below: float,
    min_coverage: float,
) -> list[Branch]:
    """Returns which groups go on, and where.

    Left out are groups whose best reward is not below `below`, whose gold documents are
    not known, whose best row found too few of them, or that have no reward at all.

    Args:
      completions: rows, those of a group adjacent.
      totals: their rewards; NaN where there is none.
      group_size: rows of a group.
      below: a reward.
      min_coverage: the least share of the gold documents.
    """
    plans = []
    for group in range(len(completions) // group_size):
        rows = slice(group * group_size, (group + 1) * group_size)
        known = totals[rows][~np.isnan(totals[rows])]
        evidence = evidence_of(completions[rows.start])
        if not evidence or not len(known) or known.max() >= below:
            continue
        order = _order(completions[rows], totals[rows])
        best = completions[rows.start + order[0]]
        if coverage(evidence, best.turns) < min_coverage:
            continue
        plans.append(
            Branch(
                group,
                rows.start + int(order[0]),
                rows.start + int(order[-1]),
                replies_to_best_coverage(evidence, best.turns),
            )
        )
    return plans


def replies_to_best_coverage(evidence: Evidence, turns: Sequence[Turn]) -> int:
    """Returns after how many replies an episode had found all that it ever found.

    0 where it found nothing. A malformed turn was replied to as well.
    """
    found = [coverage(evidence, turns[:n]) for n in range(len(turns) + 1)]
    return found.index(max(found))


def _order(
    completions: Sequence[Completion], totals: Float[np.ndarray, " G"]
) -> Int[np.ndarray, " G"]:
    """Returns the rows of a group, best first: by reward, coverage and few calls."""
    found = np.array([_coverage(each) for each in completions])
    calls = [sum(bool(turn.query) for turn in each.turns) for each in completions]
    reward = np.nan_to_num(totals, nan=-np.inf)
    return np.lexsort((np.array(calls), -found, -reward))


def _coverage(completion: Completion) -> float:
    return coverage(evidence_of(completion), completion.turns)


def _mask(row: Trajectories, length: int) -> None:
    """Takes what the policy wrote in the first `length` tokens out of the loss."""
    first = row.origins[:, :length]
    first[first == Origin.SAMPLED] = Origin.FORCED
    row.behavior_log_probs[:, :length] = 0
    row.kept_log_mass[:, :length] = 0


def metrics(ledger: Counter[str], groups: int) -> dict[str, float]:
    """Returns a step's ledger as metrics.

    Args:
      ledger: as `expand` counts.
      groups: of the step.
    """
    expanded = max(ledger["groups"], 1)
    return {
        "expansion/expanded_fraction": ledger["groups"] / groups,
        "expansion/continuations": ledger["continuations"],
        "expansion/generated_tokens": ledger["tokens"],
        "expansion/replaced_fraction": ledger["replaced"] / expanded,
        "expansion/found_more_fraction": ledger["found_more"] / expanded,
    }
