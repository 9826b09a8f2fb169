"""What agents did in their episodes: calls, evidence, turns, hops.

On the host, from the turns that were recorded and the columns of the questions, never
from text. docs/search_tasks.md defines every metric. A metric that has nothing to say
of a batch, such as the coverage where no gold documents are known, is left out of it.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from grpo_jax.config import TrainConfig
from grpo_jax.retrieval import words
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.evidence import coverage, evidence_of
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import statistics

# What a turn did; the first that is true of it.
ACTIONS = ("search", "malformed", "answer", "cut")
# Rewards that say whether an answer is right, the first one there is.
RIGHT = ("accuracy", "exact_match")
# Questions of more hops count as ones of so many.
MOST_HOPS = 4
# Share of the words of two queries from which on they are nearly the same.
_NEAR = 0.9


class Course(NamedTuple):
    """What one episode did.

    Attributes:
      actions: of each turn, one of ACTIONS, or "refused": it asked with no call left.
      covered: share of the gold documents that was shown before the first turn, after
        it, after the second; () where they are not known or the environment failed.
      calls: turns that searched.
      tokens: that the policy wrote.
      hops: gold documents needed, at most MOST_HOPS; 0 where that is not known.
      right: 1 or 0; NaN where that is not known.
    """

    actions: tuple[str, ...]
    covered: tuple[float, ...]
    calls: int
    tokens: int
    hops: int
    right: float


def of_step(
    completions: Sequence[Completion], table: RewardTable, config: TrainConfig
) -> dict[str, float]:
    """Returns the metrics of a step, "episode/..."; right is what its rewards say."""
    judges = [table.names.index(name) for name in RIGHT if name in table.names]
    right = np.full(len(completions), np.nan)
    if judges:
        right = table.values[:, judges[0]]
    return metrics(completions, right, config.episode.max_calls)


def metrics(
    completions: Sequence[Completion], right: Float[np.ndarray, " B"], max_calls: int
) -> dict[str, float]:
    """Returns what the episodes did, "episode/...".

    Args:
      completions: at least one, each with its turns.
      right: 1 where the answer is right, else 0; NaN where that is not known.
      max_calls: most calls of an episode; turns beyond it are in no metric of a turn.
    """
    courses = [
        course(each, value) for each, value in zip(completions, right, strict=True)
    ]
    found = (
        _calls(completions, courses)
        | _evidence(courses)
        | _turns(courses, max_calls)
        | _hops(courses)
    )
    return {f"episode/{name}": value for name, value in found.items()}


def course(completion: Completion, right: float) -> Course:
    """Returns what an episode did; `right` as in `metrics`."""
    turns, evidence = completion.turns, evidence_of(completion)
    covered: tuple[float, ...] = ()
    if evidence and not completion.failed:
        covered = tuple(
            coverage(evidence, turns[:end]) for end in range(len(turns) + 1)
        )
    return Course(
        actions=tuple(_action(completion, at) for at in range(len(turns))),
        covered=covered,
        calls=sum(bool(turn.query) for turn in turns),
        tokens=completion.sampled_tokens,
        hops=min(completion.columns.get("hops") or 0, MOST_HOPS),
        right=float(right),
    )


def _action(completion: Completion, at: int) -> str:
    turn = completion.turns[at]
    if turn.query:
        return "search"
    if turn.malformed:
        return "malformed"
    if at + 1 < len(completion.turns):
        return "refused"
    return "answer" if completion.finished else "cut"


def _calls(
    completions: Sequence[Completion], courses: Sequence[Course]
) -> dict[str, float]:
    """Returns how often was asked, and how much of it was of no use by itself."""
    asked = [[turn for turn in each.turns if turn.query] for each in completions]
    actions = [action for each in courses for action in each.actions]
    tried = [action for action in actions if action in ("search", "malformed")]
    shown, new = map(sum, zip(*map(_shown, asked), strict=True))
    return {
        "calls_mean": float(np.mean([each.calls for each in courses])),
        "calls_max": float(max(each.calls for each in courses)),
    } | _means(
        {
            "no_call_fraction": [each.calls == 0 for each in courses],
            "failed_fraction": [each.failed for each in completions],
            "refused_fraction": ["refused" in each.actions for each in courses],
            "malformed_fraction": [action == "malformed" for action in tried],
            "repeated_query_fraction": [x for turns in asked for x in _repeats(turns)],
            "near_duplicate_fraction": [
                overlap >= _NEAR for turns in asked for overlap in _overlaps(turns)
            ],
            "new_document_fraction": [new / shown] if shown else [],
        }
    )


def _shown(asked: Sequence[Turn]) -> tuple[int, int]:
    """Returns how many documents an episode was shown, and how many different ones."""
    ids = [id for turn in asked for id in turn.document_ids]
    return len(ids), len(set(ids))


def _repeats(asked: Sequence[Turn]) -> list[bool]:
    """Returns for each call whether its query was asked before in the episode.

    Case and blanks do not count.
    """
    plain = [" ".join(turn.query.lower().split()) for turn in asked]
    return [query in plain[:at] for at, query in enumerate(plain)]


def _overlaps(asked: Sequence[Turn]) -> list[float]:
    """Returns for each call how much of an earlier query of the episode it repeats.

        max over earlier queries e of |words(q) & words(e)| / |words(q) | words(e)|

    which is 0 for the first one, and 1 of two queries without any word.
    """
    split = words.splitter(stop_words=False, stemming=False)
    queries = [set(split(turn.query)) for turn in asked]
    return [
        max((_jaccard(each, old) for old in queries[:at]), default=0.0)
        for at, each in enumerate(queries)
    ]


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


def _evidence(courses: Sequence[Course]) -> dict[str, float]:
    """Returns what calls found, and whether episodes ended too early or too late."""
    known = [each for each in courses if each.covered]
    calls = [call for each in known for call in _gains(each)]
    judged = [each for each in known if not np.isnan(each.right)]
    return _means(
        {
            "coverage_mean": [each.covered[-1] for each in known],
            "useful_call_fraction": [gain > 0 for _, _, gain in calls],
            "surplus_call_fraction": [before == 1 for _, before, _ in calls],
            "over_search_fraction": [_searches_on(each) for each in known],
            "premature_stop_fraction": [_stops_early(each) for each in judged],
        }
    )


def _gains(one: Course) -> list[tuple[int, float, float]]:
    """Returns turn (from 1), coverage before it, and what it added, of every call."""
    steps = zip(one.actions, itertools.pairwise(one.covered), strict=True)
    return [
        (turn, before, after - before)
        for turn, (action, (before, after)) in enumerate(steps, start=1)
        if action == "search"
    ]


def _searches_on(one: Course) -> bool:
    """Whether it called again once the coverage was at its highest, above 0."""
    peak = one.covered[-1]
    return peak > 0 and any(before == peak for _, before, _ in _gains(one))


def _stops_early(one: Course) -> bool:
    """Whether it ended by itself, with calls left, wrong and without all documents."""
    answered = one.actions[-1:] == ("answer",) and "refused" not in one.actions
    return answered and one.right < 0.5 and one.covered[-1] < 1


def _turns(courses: Sequence[Course], max_calls: int) -> dict[str, float]:
    """Returns what episodes did in their turn t, and what its call gained."""
    calls = [call for each in courses if each.covered for call in _gains(each)]
    found = {}
    for turn in range(1, max_calls + 1):
        done = [x.actions[turn - 1] for x in courses if len(x.actions) >= turn]
        for name in ACTIONS:
            found[f"{name}_turn_{turn}"] = [action == name for action in done]
        found[f"gain_turn_{turn}"] = [gain for at, _, gain in calls if at == turn]
    for count in range(max_calls + 1):
        right = [each.right for each in courses if each.calls == count]
        found[f"right_calls_{count}"] = _known(right)
    return _means(found)


def _hops(courses: Sequence[Course]) -> dict[str, float]:
    """Returns what episodes did by the hops that their questions need."""
    found = {}
    for hops in range(1, MOST_HOPS + 1):
        some = [each for each in courses if each.hops == hops]
        found[f"calls_hops_{hops}"] = [each.calls for each in some]
        found[f"tokens_hops_{hops}"] = [each.tokens for each in some]
        found[f"right_hops_{hops}"] = _known([each.right for each in some])
    known = [each for each in courses if each.hops]
    calls = np.array([each.calls for each in known], float)
    hops = np.array([each.hops for each in known], float)
    if len(set(calls)) > 1 and len(set(hops)) > 1:
        found["calls_hops_spearman"] = [statistics.spearman(calls, hops)]
    return _means(found)


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not np.isnan(value)]


def _means(values: Mapping[str, Sequence[int | float]]) -> dict[str, float]:
    """Returns means, without those of nothing."""
    return {name: float(np.mean(each)) for name, each in values.items() if len(each)}
