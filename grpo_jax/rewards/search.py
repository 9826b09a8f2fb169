"""Rewards of search agents by name, with their parameters."""

from grpo_jax import choices
from grpo_jax.reward_config import SearchRewardConfig
from grpo_jax.rewards.answer import answer_f1, exact, exact_match, f1, golds_of
from grpo_jax.rewards.base import Completion, RewardFunction, one_by_one
from grpo_jax.rewards.evidence import coverage, evidence_of, evidence_recall
from grpo_jax.rewards.legacy_david import legacy_david
from grpo_jax.rewards.reading import is_well_formed, read_answer
from grpo_jax.rewards.tags import TagSet

# What evaluations of search agents report beside accuracy.
WATCHED = ("answer_f1", "evidence_recall")


def search_rewards(
    tags: TagSet, config: SearchRewardConfig
) -> dict[str, RewardFunction]:
    """Returns the rewards that every task of search agents has."""
    return {
        "accuracy": exact_match(tags),
        "exact_match": exact_match(tags),
        "answer_f1": answer_f1(tags),
        "evidence_recall": evidence_recall(),
        "format": search_format(tags, config),
        "search_format": search_format(tags, config),
        "david": david(tags, config),
        "legacy_david": legacy_david,
    }


def search_format(tags: TagSet, config: SearchRewardConfig) -> RewardFunction:
    """Returns the reward that is 1 for an episode as `tags` wants it, else 0.

    See `reading.is_well_formed`. With `config.require_search` an episode that asked
    nothing is worth 0.
    """

    def value(completion: Completion) -> float:
        return float(_passes(tags, config, completion))

    return one_by_one(value)


def david(tags: TagSet, config: SearchRewardConfig) -> RewardFunction:
    """Returns the reward for evidence and answer of episodes in good form.

        evidence_weight * recall + (1 - evidence_weight) * answer

    and 0 where `search_format` is 0, where no answer is stated, or where a query is
    asked again, cases and blanks aside. The answer is worth its exact match or its F1,
    as `config.answer` says. Where the gold documents are not known, it counts alone.

    Source: David-GRPO (arXiv 2601.21699), with these deviations from its code, which
    is `legacy_david`: only what the policy wrote is read, evidence is counted by ids,
    and an answer earns nothing by being empty, a part of a gold answer, or most of its
    words in any order. The gates are of its code; its paper has the formula alone.
    """

    def value(completion: Completion) -> float:
        answer = read_answer(tags, completion)
        asked = [turn.query for turn in completion.turns if turn.query]
        distinct = {" ".join(query.lower().split()) for query in asked}
        in_form = _passes(tags, config, completion) and len(distinct) == len(asked)
        if answer is None or not in_form:
            return 0.0
        worth = _worth(config, answer, completion)
        evidence, weight = evidence_of(completion), config.evidence_weight
        if not evidence:
            return worth
        return weight * coverage(evidence, completion.turns) + (1 - weight) * worth

    return one_by_one(value)


def _passes(tags: TagSet, config: SearchRewardConfig, completion: Completion) -> bool:
    searched = any(turn.query for turn in completion.turns)
    return (searched or not config.require_search) and is_well_formed(tags, completion)


def _worth(config: SearchRewardConfig, answer: str, completion: Completion) -> float:
    golds = golds_of(completion)
    match config.answer:
        case choices.AnswerScore.EXACT:
            return exact(answer, golds)
        case choices.AnswerScore.F1:
            return f1(answer, golds)
