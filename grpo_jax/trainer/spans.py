"""Who wrote which part of a completion, by its tokens and by its text's characters."""

import codecs
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from grpo_jax.records import Origin

# A name of `Origin` in lower case, the first of its tokens or characters, and the one
# behind the last.
Span = tuple[str, int, int]


def token_spans(origins: UInt8[np.ndarray, " C"]) -> list[Span]:
    """Returns the runs of equal origin in the tokens of a completion."""
    edges = [0, *(np.flatnonzero(np.diff(origins)) + 1).tolist(), len(origins)]
    return [
        (Origin(int(origins[a])).name.lower(), a, b)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
        if a < b
    ]


def text_spans(
    spans: Sequence[Span], tokens: Int[np.ndarray, " C"], pieces: Sequence[bytes]
) -> list[Span]:
    """Returns the same spans in characters of the text that the tokens decode to.

    A character whose bytes two spans share belongs to the first of them.

    Args:
      spans: of the tokens, without gaps.
      tokens: ids of the completion.
      pieces: the bytes that each id adds to a text.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    found, whole, end = [], 0, 0
    for origin, first, last in spans:
        written = b"".join(pieces[token] for token in tokens[first:last].tolist())
        whole += len(decoder.decode(written))
        begun = bool(decoder.getstate()[0])
        start, end = end, whole + begun
        found.append((origin, start, end))
    return found
