"""Turns of the built-in world: what experts do, and what demonstrations show."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from grpo_jax.data.world_words import FACTS
from grpo_jax.retrieval.base import Document
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks.experts import ExpertTurn

# Of which kind of entity a fact is.
_ASKED_OF = {fact: kind for kind, facts in FACTS.items() for fact in facts}


def phrase(facts: Sequence[str], name: str) -> str:
    """Returns `guild of home of Ada Fox`: the fact to ask first comes last."""
    return " of ".join([*reversed(facts), name])


def write_document(id: int, name: str, facts: Mapping[str, str]) -> Document:
    """Returns the document of somebody or something, with what each fact names."""
    return Document(str(id), name, "; ".join(f"{f} {to}" for f, to in facts.items()))


def ask(facts: Sequence[str], document: Document, *, thoughts: bool) -> ExpertTurn:
    """Returns the turn that asks for the first of the facts that are left."""
    left = phrase(facts, document.title) if thoughts else ""
    return ExpertTurn(left, f"{document.title} {facts[0]}", (document,))


def state(name: str, *, thoughts: bool) -> ExpertTurn:
    """Returns the turn that answers."""
    return ExpertTurn(name if thoughts else "", answer=name)


def demonstration(
    config: WorldConfig,
    facts: Sequence[str],
    start: str,
    names: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
) -> tuple[ExpertTurn, ...]:
    """Returns what the warm start shows of a question.

    Its documents say something else each time, with names that need not be of anybody:
    who has read them can copy what they say, but not remember it. It may stop before
    the end and take what it has found for the answer, or look up the answer, too.

    Args:
      config: how often it does so, and whether it writes down what is left.
      facts: what is asked, first to last.
      start: whom the question names.
      names: that documents may say, by kind.
      rng: draws.
    """
    thoughts, seen, turns = config.thoughts, [start], []
    for hop, fact in enumerate(facts):
        known = _invent(_ASKED_OF[fact], seen, names, rng)
        document = write_document(0, seen[-1], known)
        turns.append(ask(facts[hop:], document, thoughts=thoughts))
        seen.append(known[fact])
        if rng.random() < config.early_stop_fraction:
            break
    answer = state(seen[-1], thoughts=thoughts)
    ended = len(turns) == len(facts)
    if ended and rng.random() < config.needless_call_fraction:
        known = _invent(FACTS[_ASKED_OF[facts[-1]]][facts[-1]], seen, names, rng)
        document = write_document(0, seen[-1], known)
        needless = ask([str(rng.choice([*known]))], document, thoughts=False)
        turns.append(dataclasses.replace(needless, thought=answer.thought))
    return (*turns, answer)


def _invent(
    kind: str,
    seen: Sequence[str],
    names: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
) -> dict[str, str]:
    """Returns facts of somebody of a kind that name nobody who was seen before."""
    return {
        fact: str(rng.choice([name for name in names[of] if name not in seen]))
        for fact, of in FACTS[kind].items()
    }
