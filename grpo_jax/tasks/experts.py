"""What an expert did, turn by turn, free of any tags: thought, asked, saw, answered."""

import dataclasses
from collections.abc import Sequence

from grpo_jax.data.examples import Segment
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards import tags as tagging
from grpo_jax.rewards.base import Turn
from grpo_jax.rewards.tags import TagSet


@dataclasses.dataclass(frozen=True)
class ExpertTurn:
    """One turn of an expert: it asks a query, or in the last one states an answer.

    Attributes:
      thought: what it wrote before; may be "".
      query: what it asked; "" in the last turn only.
      documents: what it was shown for the query, best first.
      answer: what it answered; "" in all turns but the last.
      log_probs: of each token of the turn as a run writes it, under the expert, the
        last turn's with the end-of-sequence token; () where they are not known.
    """

    thought: str
    query: str = ""
    documents: tuple[Document, ...] = ()
    answer: str = ""
    log_probs: tuple[float, ...] = ()


def segments(tags: TagSet, turns: Sequence[ExpertTurn]) -> list[Segment]:
    """Returns a trajectory as `tags` writes it, what the expert wrote and what it saw.

    Two that follow one another are never of the same kind.
    """
    found = []
    for turn in turns:
        found.append(Segment(_write(tags, turn), observed=False))
        if turn.query:
            pages = [(each.title, each.text) for each in turn.documents]
            seen = tagging.write_observation(tags, pages)
            found.append(Segment(seen, observed=True))
    return found


def record(tags: TagSet, turns: Sequence[ExpertTurn]) -> tuple[Turn, ...]:
    """Returns the record that these turns would have left, for rewards to read."""
    return tuple(
        Turn(_write(tags, turn), turn.query, tuple(each.id for each in turn.documents))
        for turn in turns
    )


def _write(tags: TagSet, turn: ExpertTurn) -> str:
    return tagging.write_turn(tags, turn.thought, query=turn.query, answer=turn.answer)
