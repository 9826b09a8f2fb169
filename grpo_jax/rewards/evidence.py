"""Did an episode find what its question needs: which gold documents it was shown.

A task names the gold documents of a question in the column "evidence": one entry a
document, in the order in which reasoning needs them, each with the ids that count as
it. There is more than one where a corpus has a page in parts, and none where it does
not have it.
"""

from collections.abc import Iterable, Sequence

from grpo_jax.rewards.base import Completion, RewardFunction, Turn, one_by_one

Evidence = Sequence[Sequence[str]]


def evidence_of(completion: Completion) -> Evidence:
    """Returns the gold documents of a completion's question; none if not known."""
    return completion.columns.get("evidence") or ()


def coverage(evidence: Evidence, turns: Iterable[Turn]) -> float:
    """Returns which share of the gold documents was shown in any of `turns`.

    By the ids that were recorded, never by what a text says. A document counts once,
    however often it was shown.

    Args:
      evidence: at least one gold document.
      turns: what an episode recorded, all of it or its beginning.
    """
    return found(evidence, turns) / len(evidence)


def found(evidence: Evidence, turns: Iterable[Turn]) -> int:
    """Returns how many of the gold documents were shown; see `coverage`."""
    shown = {id for turn in turns for id in turn.document_ids}
    return sum(not shown.isdisjoint(ids) for ids in evidence)


def evidence_recall() -> RewardFunction:
    """Returns the reward that is `coverage` of an episode.

    None where the gold documents are not known.

    Source: the grounded retrieval reward of David-GRPO (arXiv 2601.21699).
    """

    def value(completion: Completion) -> float | None:
        evidence = evidence_of(completion)
        return coverage(evidence, completion.turns) if evidence else None

    return one_by_one(value)
