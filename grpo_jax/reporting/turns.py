"""What a completion of an agent is made of, turn by turn, from its row of rollouts/.

    row     completion, turns, text_spans, evidence
    turn    what it wrote, what it asked, what it was shown and which of that was sought

Texts are cut where the row says, by characters; what was shown is told by ids, and
neither is read from text.
"""

from collections.abc import Sequence
from typing import Any

from grpo_jax.reporting.workdir import Row

_OBSERVATION = "observation"


def turns_of(row: Row) -> list[Row]:
    """Returns the turns of a completion; [] where a row does not say where they are.

    Such rows are those of runs without an environment, and of older ones.

    Returns:
      For each turn, as JSON values:
        parts: pairs of an origin and what was written with it, in order.
        query: what it asked; "" for nothing.
        marks: what was wrong with it, in words.
        observation: what it was shown; "" where nothing.
        documents: pairs of a name and whether the document is a gold one: of those that
          it was shown, best first. Gold documents are named by their title.
        coverage: "2 of 3 gold documents", shown so far; "" where they are not known.
    """
    text, recorded = str(row.get("completion")), _objects(row.get("turns"))
    spans = _spans(row, len(text))
    written, observations = _cut(text, spans)
    if not spans or len(recorded) != len(written):
        return []
    golds, seen, turns = gold_documents(row), set[str](), []
    for at, turn in enumerate(recorded):
        ids = _strings(turn.get("document_ids"))
        seen.update(ids)
        turns.append(
            {
                "parts": written[at],
                "query": str(turn.get("query") or ""),
                "marks": _marks(turn, is_last=at + 1 == len(recorded)),
                "observation": observations[at] if at < len(observations) else "",
                "documents": [_document(id, golds) for id in ids],
                "coverage": _coverage(seen, golds),
            }
        )
    return turns


def gold_documents(row: Row) -> list[tuple[str, list[str]]]:
    """Returns the title of each gold document, or else its id, and the ids it has."""
    evidence = row.get("evidence")
    golds = [_strings(ids) for ids in evidence] if isinstance(evidence, list) else []
    titles = _strings(row.get("gold_titles"))
    if len(titles) != len(golds):
        titles = [ids[0] if ids else "one that the corpus lacks" for ids in golds]
    return list(zip(titles, golds, strict=True))


def _cut(
    text: str, spans: Sequence[tuple[str, int, int]]
) -> tuple[list[list[list[str]]], list[str]]:
    """Returns what was written between observations, and the observations."""
    written: list[list[list[str]]] = [[]]
    observations: list[str] = []
    for origin, start, end in spans:
        if origin == _OBSERVATION:
            observations.append(text[start:end])
            written.append([])
        else:
            written[-1].append([origin, text[start:end]])
    return written, observations


def _marks(turn: Row, *, is_last: bool) -> list[str]:
    """Returns what was wrong with a turn.

    One that asked nothing and was shown something all the same had no call left.
    """
    marks = []
    if turn.get("malformed"):
        marks.append("query could not be read")
    elif turn.get("failed"):
        marks.append("retrieval failed, so there is no reward")
    elif is_last and turn.get("query"):
        marks.append("no room for what it asked")
    elif not is_last and not turn.get("query"):
        marks.append("no call was left")
    return marks


def _coverage(seen: set[str], golds: Sequence[tuple[str, list[str]]]) -> str:
    if not golds:
        return ""
    found = sum(not seen.isdisjoint(ids) for _, ids in golds)
    return f"{found} of {len(golds)} gold document{'s' if len(golds) > 1 else ''}"


def _document(id: str, golds: Sequence[tuple[str, list[str]]]) -> list[Any]:
    title = next((title for title, ids in golds if id in ids), None)
    return [id, False] if title is None else [title, True]


def _spans(row: Row, length: int) -> list[tuple[str, int, int]]:
    """Returns the spans of a text of so many characters; [] if they are not all of it.

    Nothing of a completion may be missing where it is shown in parts.
    """
    found, last = [], 0
    spans = row.get("text_spans")
    for span in spans if isinstance(spans, list) else []:
        match span:
            case [str(origin), int(start), int(end)] if start == last <= end:
                found.append((origin, start, end))
                last = end
            case _:
                return []
    return found if last == length else []


def _objects(value: Any) -> list[Row]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
