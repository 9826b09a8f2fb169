r"""What a search agent asked and answered: read from what it wrote and nothing else.

Of one turn (`read_query`):

- It asks what stands between the first opening tag of a query and the first closing
  one, if that is more than blanks. What follows the closing tag is not looked at.
- It tried and failed, which is malformed, where a tag of a query occurs and no such
  query: one tag without the other, another tag between them (nested queries too),
  nothing between them, or thoughts in the wrong state: still open where queries follow
  thoughts, already closed where queries happen in them.

Of an episode (`read_answer`):

- Only the last turn is read, and only if it asks nothing: neither the question, nor an
  observation, nor a turn before one can state the answer. Where no turns were recorded,
  that is what follows the last closing tag of an observation.
- An answer follows the thoughts; if begun, they must have ended. Where searches happen
  in thoughts, these must have ended in the last turn.
- Of several answers the last one counts, from its last opening tag on. One that is
  blank or has a tag in it is none.
"""

from typing import NamedTuple

from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.tags import BOX, TagSet


class Query(NamedTuple):
    """What a turn asks: "" for nothing; then, whether it tried to."""

    text: str
    malformed: bool


def read_query(tags: TagSet, turn: str) -> Query:
    """Returns what a turn asks, by the rules above."""
    parts = tags.split(turn)
    names = parts[1::2]
    if not set(names) & set(tags.query):
        return Query("", malformed=False)
    if tags.query.close not in names:
        return Query("", malformed=True)
    end = names.index(tags.query.close)
    text = parts[2 * end].strip()
    opened = end > 0 and names[end - 1] == tags.query.open
    lead = names[: max(end - 1, 0)]
    if not (opened and text) or _is_wrong(tags, lead):
        return Query("", malformed=True)
    return Query(text, malformed=False)


def read_answer(tags: TagSet, completion: Completion) -> str | None:
    """Returns the answer of an episode by the rules above, None if it states none."""
    text = last_turn(tags, completion)
    if tags.searches_in_thoughts and tags.think.close not in text:
        return None
    text = extraction.after_thinking(text)
    if any(tag in text for tag in tags.query):
        return None
    answer = _last_answer(tags, text)
    if not answer or any(tag in answer for tag in tags.names):
        return None
    return answer


def turns_of(completion: Completion) -> list[str]:
    """Returns what the policy wrote, by turns; all of it where none were recorded.

    With the `<think>` that the prompt ends with, if it does.
    """
    texts = [turn.text for turn in completion.turns] or [completion.text]
    return [extraction.prefilled(completion.prompt, texts[0]), *texts[1:]]


def last_turn(tags: TagSet, completion: Completion) -> str:
    """Returns what the policy wrote after its last observation; "" if that is cut."""
    before, closed, last = turns_of(completion)[-1].rpartition(tags.observation.close)
    if tags.observation.open in last:
        return ""
    # Thoughts that a query interrupted are still open behind its observation.
    opened = closed and before.rfind(tags.think.open) > before.rfind(tags.think.close)
    return tags.think.open + last if opened else last


def is_well_formed(tags: TagSet, completion: Completion) -> bool:
    """Whether every turn but the last asks, the last one answers, and nothing else.

    Each of them is as `tags.py` shows it; in particular no tag occurs that does not
    belong there, and only blanks stand outside tags, except for thoughts in DAVID and
    what it writes around its box.
    """
    *asking, last = turns_of(completion)
    if any(not _asks(tags, turn, at == 0) for at, turn in enumerate(asking)):
        return False
    return _answers(tags, last, not asking)


def _is_wrong(tags: TagSet, lead: list[str]) -> bool:
    """Whether no query may follow these tags."""
    if tags.query.open in lead:
        return True
    if tags.searches_in_thoughts:
        return tags.think.close in lead
    return lead.count(tags.think.open) > lead.count(tags.think.close)


def _asks(tags: TagSet, turn: str, first: bool) -> bool:
    parts = tags.split(turn)
    names = parts[1::2]
    if names[-2:] != list(tags.query) or parts[-1].strip() or not parts[-3].strip():
        return False
    return _thinks(tags, parts[:-4], first)


def _answers(tags: TagSet, turn: str, first: bool) -> bool:
    parts = tags.split(turn)
    names = parts[1::2]
    if tags.searches_in_thoughts:
        if names[-1:] != [tags.think.close] or not _last_answer(tags, parts[-1]):
            return False
        return _thinks(tags, parts[:-2], first)
    if names[-2:] != list(tags.answer) or parts[-1].strip() or not parts[-3].strip():
        return False
    return _thinks(tags, parts[:-4], first)


def _thinks(tags: TagSet, parts: list[str], first: bool) -> bool:
    """Whether what precedes a query or an answer is thoughts, or blank, or nothing."""
    names = parts[1::2]
    if tags.searches_in_thoughts:
        opened = names == [tags.think.open] and first and not parts[0].strip()
        return not names or opened
    if not names:
        return not "".join(parts).strip()
    return names == list(tags.think) and not (parts[0] + parts[-1]).strip()


def _last_answer(tags: TagSet, text: str) -> str | None:
    if tags.answer == BOX:
        return extraction.last_box(text)
    before, closed, _ = text.rpartition(tags.answer.close)
    _, opened, answer = before.rpartition(tags.answer.open)
    return answer.strip() if opened and closed else None
