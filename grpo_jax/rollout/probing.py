"""What rows would answer if they had to now, and how sure they are of it.

    ... [<information>...]  <answer>  "Lea Fox" "</answer>"
                             forced    greedy, thrown away again

    confidence = exp(mean log-prob of the tokens of the answer)

Log-probs are those of the model as it is, at a temperature of 1. Nothing of this is
left in a row: what it samples afterwards is what it would have sampled without.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax.rewards.base import Probe
from grpo_jax.rollout.session import Peek, Session


class Probing(NamedTuple):
    """How rows are made to answer.

    Attributes:
      opening: tokens that an answer follows.
      closing: the bytes that end it.
      nested: as many of these in the answer as of `closing` must come before its end;
        empty where answers hold none.
      most: tokens of an answer; a longer one is none.
      confidence: from which on a row answers for good; 0: never.
    """

    opening: list[int]
    closing: bytes
    nested: bytes
    most: int
    confidence: float

    def ends(self, probe: Probe) -> bool:
        """Whether a row is sure enough to answer for good."""
        return 0 < self.confidence <= probe.confidence


def probe(
    session: Session, rows: Sequence[int], probing: Probing, pieces: Sequence[bytes]
) -> list[Probe]:
    """Returns what suspended rows would answer; they are as before then.

    Args:
      session: of the rows.
      rows: to ask.
      probing: how.
      pieces: the bytes that each token adds to a text.
    """
    seen = session.peek(rows, probing.opening, probing.most)
    return [read(each, probing, pieces) for each in seen]


def read(peek: Peek, probing: Probing, pieces: Sequence[bytes]) -> Probe:
    """Returns the answer in what was written; none if it is blank or has no end."""
    said, starts, end = b"", [], -1
    for token in peek.tokens:
        starts.append(len(said))
        said += pieces[token]
        end = _end(said, probing)
        if end >= 0:
            break
    answer = said[: max(end, 0)].decode(errors="replace").strip()
    if not answer:
        return Probe("", 0.0, 0.0, len(peek.tokens))
    scores = [
        float(score)
        for start, score in zip(starts, peek.log_probs, strict=False)
        if start < end
    ]
    mean = sum(scores) / len(scores)
    return Probe(answer, math.exp(mean), math.exp(min(scores)), len(peek.tokens))


def _end(said: bytes, probing: Probing) -> int:
    """Returns where the answer ends; -1 if it has not."""
    end = said.find(probing.closing)
    while end >= 0 and probing.nested:
        if said.count(probing.nested, 0, end) == said.count(probing.closing, 0, end):
            break
        end = said.find(probing.closing, end + 1)
    return end
