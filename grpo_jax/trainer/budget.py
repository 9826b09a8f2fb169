"""What episodes cost, and which of their calls were of no use.

Only what was recorded while they were written counts: turns, ids of documents, and the
origins of tokens. Rows whose retrieval failed are left out by whoever averages.
"""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import choices
from grpo_jax.budget_config import BudgetConfig
from grpo_jax.records import Origin, Trajectories
from grpo_jax.retrieval import words
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.evidence import evidence_of


def costs(
    completions: Sequence[Completion], trajectories: Trajectories, config: BudgetConfig
) -> Float[np.ndarray, " B"]:
    """Returns what each row cost.

        call_cost calls + (document_cost shown + token_cost written) / 1000

    Args:
      completions: what the rows asked.
      trajectories: of the rows. Shown are tokens of observations, notices among them;
        written are those that the policy sampled, and those that were put into its
        mouth (what a continuation shares with the row that it goes on from) or thrown
        away (probes).
      config: the costs.
    """
    calls = count_calls(completions).astype(float)
    if config.shared_calls:
        calls = count_shared_calls(completions)
    shown = (trajectories.origins == Origin.OBSERVATION).sum(axis=1)
    said = (Origin.SAMPLED, Origin.FORCED)
    written = np.isin(trajectories.origins, said).sum(axis=1)
    written += count_probe_tokens(completions)
    tokens = config.document_cost * shown + config.token_cost * written
    return config.call_cost * calls + tokens / 1000


def count_calls(completions: Sequence[Completion]) -> Int[np.ndarray, " B"]:
    """Returns how many queries each row asked; malformed ones are none."""
    asked = [sum(bool(turn.query) for turn in row.turns) for row in completions]
    return np.array(asked, np.int64)


def count_probe_tokens(completions: Sequence[Completion]) -> Int[np.ndarray, " B"]:
    """Returns how many tokens were written to find out what rows would answer."""
    probed = [
        sum(turn.probe.tokens for turn in row.turns if turn.probe)
        for row in completions
    ]
    return np.array(probed, np.int64)


def count_shared_calls(completions: Sequence[Completion]) -> Float[np.ndarray, " B"]:
    """Returns the calls of each row where equal queries of a group are one.

    The one call is split evenly over all that asked for it. What a cache holds depends
    on the past, on other groups and on resumes, and which row was first is only the
    order of a batch; this depends on the group alone, and its sum over the group is
    what a cache of its own would have let through. Queries are equal as in
    `retrieval.cache`: blanks aside.
    """
    asked = [
        [(row.group, " ".join(turn.query.split())) for turn in row.turns if turn.query]
        for row in completions
    ]
    times = collections.Counter(query for of_row in asked for query in of_row)
    return np.array([sum(1 / times[query] for query in row) for row in asked], float)


def allowances(
    completions: Sequence[Completion], config: BudgetConfig
) -> Float[np.ndarray, " B"]:
    """Returns what is free for each row: more where its question needs more.

    A call is free for every gold document if the configuration says so; where these
    are not known, none is.
    """
    needed = count_evidence(completions) if config.free_by_evidence else 0
    return config.free_cost + config.call_cost * needed * np.ones(len(completions))


def count_evidence(completions: Sequence[Completion]) -> Int[np.ndarray, " B"]:
    """Returns the gold documents of each row's question; 0 where they are not known."""
    return np.array([len(evidence_of(row)) for row in completions], np.int64)


def shares(
    excess: Float[np.ndarray, " B"],
    right: Bool[np.ndarray, " B"],
    config: BudgetConfig,
    group_size: int,
) -> Float[np.ndarray, " B"]:
    """Returns which share of beta each row is charged, from 0 to 1; wrong rows 0.

        COST  min(excess / max_cost, 1)
        RANK  right rows of the group with less excess / its other right rows

    Args:
      excess: cost that is not free, at least 0.
      right: rows that may be charged.
      config: the kind, and the most that a cost counts.
      group_size: rows of a group, which are adjacent.
    """
    match config.penalty:
        case choices.CostPenalty.COST:
            found = np.minimum(excess / config.max_cost, 1)
        case choices.CostPenalty.RANK:
            groups = excess.reshape(-1, group_size)
            rivals = right.reshape(-1, 1, group_size)
            cheaper = (groups[:, None, :] < groups[:, :, None]) & rivals
            others = np.maximum(rivals.sum(axis=2) - 1, 1)
            found = (cheaper.sum(axis=2) / others).ravel()
    return np.where(right, found, 0.0)


class Redundancy(NamedTuple):
    """How many calls of a row were of no use.

    Attributes:
      near_duplicates: whose words had been asked before.
      stale: that were answered with no document that was new.
      either: one of the two, or both.
    """

    near_duplicates: int
    stale: int
    either: int


def redundancy(turns: Sequence[Turn], near_duplicate: float) -> Redundancy:
    """Counts the calls of an episode that were of no use.

    Args:
      turns: of the episode. What the last one asked was not shown, for want of room:
        it may repeat a query and says nothing of documents.
      near_duplicate: a query is one if it has this share of words in common with an
        earlier one of the episode, |a and b| / |a or b|; 0: none is.
    """
    split = words.splitter(stop_words=False, stemming=False)
    known: set[str] = set()
    asked: list[set[str]] = []
    near = stale = either = 0
    for number, turn in enumerate(turns):
        if not turn.query or turn.failed:
            continue
        query = set(split(turn.query))
        overlaps = [len(query & old) / max(len(query | old), 1) for old in asked]
        is_near = near_duplicate > 0 and max(overlaps, default=0.0) >= near_duplicate
        is_stale = number + 1 < len(turns) and known.issuperset(turn.document_ids)
        near, stale = near + is_near, stale + is_stale
        either += is_near or is_stale
        asked.append(query)
        known.update(turn.document_ids)
    return Redundancy(near, stale, either)
