"""Stop strings, found in the bytes of tokens as they are sampled.

A stop may start inside one token and end inside another, with further bytes behind it,
so tokens cannot be compared with it. An automaton that reads bytes (Aho and Corasick,
1975) is instead run over every token from every state, once and on the host:

    state      how much of some stop the text ends with: 0 for nothing
    next[s,v]  the state behind token v where no stop ends in it, else 0
    hit[s,v]   0 where no stop ends in token v, else 1 + the index of the stop

A decode loop then looks up one entry a row and a step. Tokens stay as they were
sampled: the bytes a token has past the end of a stop are counted, never cut off.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int8, Int16, Int32

# What the integer types of the table can number.
_MAX_STATES = np.iinfo(np.int16).max
_MAX_STOPS = np.iinfo(np.int8).max - 1


class StopTable(struct.PyTreeNode):
    """The automaton of some stop strings, over the tokens of one vocabulary.

    Attributes:
      next: the state behind each token; 0 where a stop ends in it.
      hit: 1 + index in `stops` of the stop that ends in each token; 0 for none. Of
        several, the one whose end comes first, then the longest.
      stops: the stop strings.
    """

    next: Int16[Array, "S V"]
    hit: Int8[Array, "S V"]
    stops: tuple[str, ...] = struct.field(pytree_node=False)


def build(token_bytes: Sequence[bytes], stops: Sequence[str]) -> StopTable:
    """Runs the automaton of `stops` over every token from every state.

    Args:
      token_bytes: what each of V token ids adds to the text; b"" for those that add
        nothing, across which a stop is found as if they were not there.
      stops: the strings to find, at most 126.

    Raises:
      ValueError: no stop, an empty one, or too many, or too long, for the table.
    """
    if not stops:
        raise ValueError("stops is empty: name at least one string, or build no table")
    for index, stop in enumerate(stops):
        if not stop:
            raise ValueError(
                f"stops[{index}] is the empty string, found everywhere: remove it"
            )
    if len(stops) > _MAX_STOPS:
        raise ValueError(f"there are {len(stops)} stops: at most {_MAX_STOPS} fit")
    moves = _automaton([stop.encode() for stop in stops])
    states = len(moves) - len(stops)
    reached_SV = _read_tokens(moves, states, token_bytes)
    found_SV = reached_SV >= states
    return StopTable(
        next=jnp.asarray(np.where(found_SV, 0, reached_SV), jnp.int16),
        hit=jnp.asarray(np.where(found_SV, reached_SV - states + 1, 0), jnp.int8),
        stops=tuple(stops),
    )


def advance(
    table: StopTable, states: Int32[Array, " B"], tokens: Int32[Array, " B"]
) -> tuple[Int32[Array, " B"], Int32[Array, " B"]]:
    """Reads one token a row.

    Args:
      table: the automaton.
      states: 0 for a row at its start, and for one that resumes behind a splice.
      tokens: what was sampled, below V.

    Returns:
      The states behind the tokens, 0 behind a hit; and the hits, 0 or 1 + the index of
      the stop.
    """
    found = table.hit[states, tokens].astype(jnp.int32)
    return table.next[states, tokens].astype(jnp.int32), found


def overshoot(stops: Sequence[str], pieces: Sequence[bytes]) -> tuple[int, int]:
    """Returns which stop ends in the last of `pieces`, and the bytes that follow it.

    Args:
      stops: the strings of the table.
      pieces: bytes of the tokens that were read since the row's start, its last hit or
        its last splice, up to the one with the hit.

    Raises:
      ValueError: no stop ends in the last piece, or one has ended before it.
    """
    text = b"".join(pieces)
    ends = []
    for index, stop in enumerate(stop.encode() for stop in stops):
        start = text.find(stop)
        if start >= 0:
            ends.append((start + len(stop), -len(stop), index))
    end, _, index = min(ends, default=(0, 0, 0))
    if not ends or end <= len(text) - len(pieces[-1]):
        raise ValueError(
            f"no stop of {tuple(stops)} is the first to end in the last of "
            f"{len(pieces)} tokens: give those since the last hit or splice, up to the "
            "one with the hit"
        )
    return index, len(text) - end


def _automaton(stops: Sequence[bytes]) -> Int32[np.ndarray, "M 256"]:
    """Returns the state behind every byte, from each of M states.

    The first states are beginnings of stops in which no stop has ended yet, the last
    `len(stops)` are the stops, one each. Those are never left, so that a token is seen
    to hold a stop wherever in the token it ended.
    """
    followers, ends = _tree(stops)
    # Shorter beginnings come first, so that the row another one starts from is there.
    nodes, links, rows = [0], [0], []
    for state, node in enumerate(nodes):  # grows while it is read
        # A byte that continues no stop from here does what it does from the longest
        # beginning that this one ends with.
        row = rows[links[state]].copy() if state else np.zeros(256, np.int32)
        for byte, longer in followers[node].items():
            if longer in ends:
                row[byte] = -1 - ends[longer]
            elif row[byte] >= 0:  # else a shorter stop ends here, and none goes on
                links.append(int(row[byte]))
                row[byte] = len(nodes)
                nodes.append(longer)
        rows.append(row)
        if len(nodes) > _MAX_STATES:
            raise ValueError(
                f"the stops have more than {_MAX_STATES} beginnings, which is what "
                "fits: use fewer or shorter ones"
            )
    moves = np.stack(rows)
    moves = np.where(moves < 0, len(rows) - 1 - moves, moves)
    held = np.arange(len(rows), len(rows) + len(stops), dtype=np.int32)
    return np.concatenate([moves, np.broadcast_to(held[:, None], (len(stops), 256))])


def _tree(stops: Sequence[bytes]) -> tuple[list[dict[int, int]], dict[int, int]]:
    """Returns the beginnings of stops, numbered from the empty one.

    Returns:
      For each beginning, the next bytes and what they make of it; and the index of the
      stop for those that are whole.
    """
    followers: list[dict[int, int]] = [{}]
    ends: dict[int, int] = {}
    for index, stop in enumerate(stops):
        node = 0
        for byte in stop:
            node = followers[node].setdefault(byte, len(followers))
            if node == len(followers):
                followers.append({})
        ends.setdefault(node, index)
    return followers, ends


def _read_tokens(
    moves: Int32[np.ndarray, "M 256"], states: int, token_bytes: Sequence[bytes]
) -> Int32[np.ndarray, "S V"]:
    """Returns the state behind every token, from each of the first `states` states.

    Every token is read at once, byte by byte. The longest come first, so that those
    which still have a byte are always the first.
    """
    lengths = np.fromiter(map(len, token_bytes), np.int64, len(token_bytes))
    order = np.argsort(-lengths, kind="stable")
    text = np.frombuffer(b"".join(token_bytes), np.uint8)
    starts = (np.cumsum(lengths) - lengths)[order]
    reached = np.repeat(np.arange(states, dtype=np.int32)[:, None], len(lengths), 1)
    for offset in range(lengths.max(initial=0)):
        count = np.count_nonzero(lengths > offset)
        column = text[starts[:count] + offset]
        reached[:, :count] = moves[reached[:, :count], column]
    result = np.empty_like(reached)
    result[:, order] = reached
    return result
