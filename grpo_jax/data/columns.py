"""Columns of datasets whose names differ from one to the next, and what they say."""

from collections.abc import Iterable, Sequence
from typing import Any

from grpo_jax.data import sources

# Names that are tried, in this order, where none is given.
QUESTION = ("question", "problem", "prompt")
REFERENCE = ("answer", "final_answer", "reference", "expected_answer")


def names(rows: Iterable[sources.Row]) -> list[str]:
    """Returns the columns that any of the rows has."""
    return sorted({name for row in rows for name in row})


def find(where: str, there: Sequence[str], wanted: Sequence[str], remedy: str) -> str:
    """Returns the first of the wanted columns that is there.

    Args:
      where: of the dataset, for the message.
      there: its columns.
      wanted: names, the best first; "" is none.
      remedy: what to do about it, which the columns follow: "set --x to one of".

    Raises:
      ValueError: there is none.
    """
    for name in wanted:
        if name in there:
            return name
    named = " or ".join(map(repr, filter(None, wanted)))
    raise ValueError(f"{where} has no column {named}: {remedy} {list(there)}")


def text(row: sources.Row, name: str) -> str | None:
    """Returns what a column says, "" for nothing, None for what is no text."""
    value: Any = row.get(name) if name else None
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return str(value).encode().decode().strip()
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
