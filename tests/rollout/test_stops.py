"""Stops are found where a search of the whole text finds them, however it is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.rollout import stops

TAGS = ("</search>", "</answer>")


@jax.jit
def read(table, tokens_BT):
    """The states and hits behind every token of every row."""

    def step(states, tokens):
        states, hits = stops.advance(table, states, tokens)
        return states, (states, hits)

    start = jnp.zeros(tokens_BT.shape[0], jnp.int32)
    states_TB, hits_TB = jax.lax.scan(step, start, tokens_BT.T)[1]
    return states_TB.T, hits_TB.T


def read_pieces(names, *pieces):
    """The states and hits of one row whose tokens are `pieces`."""
    table = stops.build(pieces, names)
    states, hits = read(table, jnp.arange(len(pieces), dtype=jnp.int32)[None])
    return states[0].tolist(), hits[0].tolist()


def search(names, pieces):
    """The definition: the stop of each token, or 0, and the bytes behind it, or 0.

    The text is searched anew after every token, and starts anew behind a hit.
    """
    hits, extras, text = [], [], b""
    for piece in pieces:
        text += piece
        ends = [
            (text.find(name) + len(name), -len(name), 1 + index)
            for index, name in enumerate(map(str.encode, names))
            if name in text
        ]
        end, _, hit = min(ends, default=(len(text), 0, 0))
        hits.append(hit)
        extras.append(len(text) - end)
        text = b"" if hit else text
    return hits, extras


def vocabulary(names, rng):
    """Tokens that are bytes, fragments and neighbourhoods of the stops, or nothing."""
    letters = sorted(set("".join(names).encode()) | {0x20, 0xC3})
    text = b" ".join(map(str.encode, names)) * 2
    tokens = [bytes([letter]) for letter in letters] + [b"", b""]
    for _ in range(30):
        start, length = rng.integers(len(text)), rng.integers(1, 12)
        tokens.append(text[start : start + length])
        tokens.append(bytes(rng.choice(letters, rng.integers(1, 6)).tolist()))
    return tokens


@pytest.mark.parametrize(
    "names",
    [
        TAGS,
        ("ab", "b", "abc"),
        ("abc", "bcd", "cde", "c"),
        ("aab", "aaab", "ba", "aaaa"),
        ("abcd", "bce", "ca"),
        ("é", "日本", "本é", "ã"),
        ("<search>", "search>", "</search>\n", "\n\n"),
        ("b", "a", "b"),
    ],
)
def test_random_tokens_agree_with_a_search_of_the_text(names):
    rng = np.random.default_rng(0)
    found, straddling, extra_bytes, tokens_before = set(), 0, 0, 0
    for _ in range(5):
        tokens = vocabulary(names, rng)
        table = stops.build(tokens, names)
        streams = rng.integers(len(tokens), size=(300, 24))
        hits_BT = np.asarray(read(table, jnp.asarray(streams, jnp.int32))[1])
        for stream, hits in zip(streams, hits_BT, strict=True):
            pieces = [tokens[token] for token in stream]
            expected, extras = search(names, pieces)
            assert hits.tolist() == expected
            reset = 0
            for at in np.flatnonzero(hits).tolist():
                since = pieces[reset : at + 1]
                assert stops.overshoot(names, since) == (hits[at] - 1, extras[at])
                stop = names[hits[at] - 1].encode()
                straddling += stop not in since[-1]
                extra_bytes += extras[at] > 0
                tokens_before += reset > 0
                reset = at + 1
            found |= set(expected)
    # What the cases are for has happened.
    assert found >= {0, 1}
    assert min(extra_bytes, tokens_before) > 20
    assert straddling > 20 or min(map(len, names)) == 1


@pytest.mark.parametrize(
    ("names", "pieces", "hits"),
    [
        (("stop",), [b"stop"], [1]),
        (("stop",), [b"s", b"to", b"p"], [0, 0, 1]),
        (("stop",), [b"nonstop talk"], [1]),
        (("stop",), [b"sst", b"op."], [0, 1]),
        (("stop",), [b"sto", b"", b"p"], [0, 0, 1]),
        (("stop",), [b"sto", b"sto", b"p"], [0, 0, 1]),
        (("stop",), [b"stop", b"op", b"stop"], [1, 0, 1]),
        # Behind a hit the text starts anew, whatever the token had further.
        (("aa",), [b"aaa", b"a", b"a"], [1, 0, 1]),
        # The earliest end wins, then the longest.
        (("abc", "b"), [b"abc"], [2]),
        (("b", "ab"), [b"ab"], [2]),
        (("b", "ab"), [b"cb"], [1]),
        (("xyz", "ab", "yz"), [b"ab xyz"], [2]),
        (("xyz", "ab", "yz"), [b"x", b"yz ab"], [0, 1]),
        (("ab", "ab"), [b"ab"], [1]),
        # What no longer begins one stop still begins another.
        (("abcd", "bce"), [b"ab", b"ce"], [0, 2]),
        # A multi-byte character between tokens; half of another one before it.
        (("é",), [b"\xc3", b"\xa9"], [0, 1]),
        (("é",), [b"\xe6\x97", b"\xc3\xa9\xe6"], [0, 1]),
        (("é",), [b"\xc3\xa8"], [0]),
    ],
)
def test_literal_tokens(names, pieces, hits):
    assert read_pieces(names, *pieces)[1] == hits
    assert search(names, pieces)[0] == hits


@pytest.mark.parametrize(
    ("names", "pieces", "expected"),
    [
        (TAGS, [b"</", b"search", b">"], (0, 0)),
        (TAGS, [b"</", b"answer", b">\n\n"], (1, 2)),
        (("é",), [b"\xc3", b"\xa9\xe6\x97"], (0, 2)),
        (("abc", "b"), [b"abc"], (1, 1)),
        (("b", "ab"), [b"a", b"bab"], (1, 2)),
    ],
)
def test_overshoot_is_what_follows_the_stop(names, pieces, expected):
    assert stops.overshoot(names, pieces) == expected


@pytest.mark.parametrize(
    "pieces", [[], [b"a"], [b"</search>", b"b"], [b"</search>"] * 2]
)
def test_overshoot_of_tokens_that_end_in_no_hit(pieces):
    with pytest.raises(ValueError, match="since the last hit or splice"):
        stops.overshoot(TAGS, pieces)


def test_state_is_how_much_of_a_stop_the_text_ends_with():
    states, hits = read_pieces(("aab", "ab"), b"a", b"", b"x", b"a", b"a", b"a", b"b")
    once, twice = states[0], states[4]
    assert len({0, once, twice}) == 3
    assert states == [once, once, 0, once, twice, twice, 0]
    assert hits == [0, 0, 0, 0, 0, 0, 1]


def test_table_has_a_state_for_every_beginning_that_can_be_met():
    table = stops.build([b"a", b"", b"</"], TAGS)
    assert (table.next.shape, table.next.dtype) == ((15, 3), jnp.int16)
    assert (table.hit.shape, table.hit.dtype) == ((15, 3), jnp.int8)
    assert table.stops == TAGS
    assert table.next[:, 1].tolist() == list(range(15))
    # "a" is one state; a text with "b" has hit before "abc" can begin to.
    assert stops.build([b"a"], ("ab", "b", "abc")).next.shape == (2, 1)
    assert stops.build([], ("ab",)).next.shape == (2, 0)


def test_every_stop_and_state_that_fits_is_told_apart():
    names = tuple(f"{index:03}" for index in range(126))
    table = stops.build([name.encode() for name in names], names)
    assert table.hit[0].tolist() == list(range(1, 127))
    long = stops.build([b"a", b"b"], ("a" * 32_766 + "b",))
    assert long.next[32_765].tolist() == [32_766, 0]
    assert (long.next[32_766, 0], long.hit[32_766, 1]) == (32_766, 1)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "stops is empty"),
        (("a", ""), r"stops\[1\] is the empty string"),
        (tuple(map(str, range(127))), "127 stops: at most 126"),
        (("a" * 32_768,), "more than 32767 beginnings"),
    ],
)
def test_stops_that_no_table_holds(names, message):
    with pytest.raises(ValueError, match=message):
        stops.build([b"a"], names)


def test_rows_advance_on_their_own_and_compile_once():
    table = stops.build([b"a", b"b", b"ab"], ("ab", "ba"))
    advance = jax.jit(stops.advance)
    states, hits = advance(table, jnp.zeros(3, jnp.int32), jnp.array([0, 1, 2]))
    assert hits.tolist() == [0, 0, 1]
    assert states[2] == 0
    states, hits = advance(table, states, jnp.array([1, 0, 1]))
    assert hits.tolist() == [1, 2, 0]
    assert (states.dtype, hits.dtype) == (jnp.int32, jnp.int32)
    assert advance._cache_size() == 1


def test_stop_is_found_when_it_is_in_the_decoded_text():
    tokenizer = load_tokenizer("characters")
    names = ("</think>", "ab", "k>", "</answer>\n")
    tokens = tokenizer.token_bytes(vocab_size=110)
    table = stops.build(tokens, names)
    assert table.hit.shape[1] == 110
    rng = np.random.default_rng(0)
    likely = [0, 1, 3, 4, 5, 6, *tokenizer.encode("abk>\n"), 105]
    streams = rng.choice(likely, size=(300, 12))
    hits_BT = np.asarray(read(table, jnp.asarray(streams, jnp.int32))[1])
    for stream, hits in zip(streams, hits_BT, strict=True):
        texts = (tokenizer.decode(stream[: at + 1]) for at in range(len(stream)))
        expected = [any(name in text for name in names) for text in texts]
        assert np.logical_or.accumulate(hits > 0).tolist() == expected
