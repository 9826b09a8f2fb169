import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import SignalRows
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.objective.guidance import (
    anneal,
    answer_boundary,
    guided_rows,
    per_prompt,
    reasoning_tokens,
    signal,
    splice,
    tokens_before,
    trace_limit,
)

NAN = math.nan


def ints(*values):
    return jnp.array(values, jnp.int32)


@pytest.mark.parametrize(
    ("group_size", "fraction", "count"),
    [
        (10, 1 / 4, 3),
        (12, 1 / 6, 2),
        (8, 1 / 4, 2),
        (30, 0.1, 3),
        (100, 0.07, 7),  # a float product of 7.000000000000001
        (100, 0.071, 8),
        (7, 3 / 7, 3),
        (4, 0.01, 1),
        (4, 1.0, 4),
        (4, 0.0, 0),
    ],
)
def test_every_group_has_as_many_guided_rows(group_size, fraction, count):
    rows = guided_rows(5, group_size, fraction).reshape(5, group_size)
    expected = [[True] * count + [False] * (group_size - count)] * 5
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("fraction", [-0.1, 1.01, NAN])
def test_a_fraction_that_is_none_is_refused(fraction):
    for call in (
        lambda: guided_rows(1, 4, fraction),
        lambda: trace_limit([1], fraction=fraction, room=4),
        lambda: anneal(ints(4), 0, total_steps=4, fraction=fraction),
    ):
        with pytest.raises(ValueError, match=f"fraction is {fraction}"):
            call()


def test_splice_literals():
    traces = ints([11, 12, 13, 14], [21, 22, 0, 0])
    guided = jnp.array([True, True, False] * 2)
    prefixes, lengths = splice(traces, ints(3, 1), jnp.int32(2), guided)
    np.testing.assert_array_equal(
        prefixes,
        [[11, 12, 0, 0]] * 2 + [[0] * 4] + [[21, 0, 0, 0]] * 2 + [[0] * 4],
    )
    np.testing.assert_array_equal(lengths, [2, 2, 0, 1, 1, 0])


@pytest.mark.parametrize("length", [0, 1, 5, 9, 100])
def test_prefixes_are_the_heads_of_the_traces(length):
    """A length for all, or the same one for every prompt."""
    rng = np.random.default_rng(length)
    traces = rng.integers(1, 50, (6, 9), np.int32)
    limits = rng.integers(0, 10, 6, np.int32)
    guided = guided_rows(6, 4, 0.5)
    every = jnp.full(6, length, jnp.int32)
    for lengths in (jnp.int32(length), every):
        prefixes, given = jax.jit(splice)(traces, limits, lengths, guided)
        assert prefixes.shape == (24, 9) and prefixes.dtype == jnp.int32
        for row in range(24):
            expected = min(length, limits[row // 4]) if guided[row] else 0
            assert given[row] == expected
            head = traces[row // 4, :expected]
            np.testing.assert_array_equal(prefixes[row, :expected], head)
            np.testing.assert_array_equal(prefixes[row, expected:], 0)


def test_a_length_for_each_prompt_and_lengths_that_mean_nothing():
    traces = jnp.ones((3, 4), jnp.int32)
    _, given = splice(traces, ints(9, 9, -1), ints(-3, 7, 2), jnp.ones(3, bool))
    np.testing.assert_array_equal(given, [0, 4, 0])


def test_nothing_is_given_without_guided_rows_or_length():
    traces, limits = jnp.ones((2, 3), jnp.int32), ints(3, 3)
    for guided, length in ((guided_rows(2, 4, 0.0), 3), (guided_rows(2, 4, 1.0), 0)):
        prefixes, given = splice(traces, limits, jnp.int32(length), guided)
        assert not prefixes.any() and not given.any()


def test_rows_must_be_whole_groups():
    with pytest.raises(ValueError, match="2 prompts do not divide 3 rows"):
        splice(jnp.ones((2, 3), jnp.int32), ints(1, 1), jnp.int32(1), jnp.ones(3, bool))


def test_a_new_length_compiles_nothing():
    compiled = []

    @jax.jit
    def compute(limits, length, guided):
        compiled.append(1)
        return splice(jnp.ones((2, 5), jnp.int32), limits, length, guided)[1]

    given = [
        compute(ints(limit, 5), jnp.int32(length), guided_rows(2, 2, fraction)).tolist()
        for limit, length, fraction in [(5, 2, 0.5), (1, 4, 1.0)]
    ]
    assert given == [[2, 0, 2, 0], [1, 1, 4, 4]]
    assert len(compiled) == 1


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        (r"<think>so 2</think>\boxed{2}", "<think>so 2"),
        (r"hm, \boxed{2} it is</think>", "hm, "),
        (r"2<answer>2</answer>", "2"),
        (r"</think>", ""),
        ("<think>naïve 🙂 boxed think", "<think>naïve 🙂 boxed think"),
        ("", ""),
    ],
)
def test_reasoning_ends_at_the_first_mark(text, reasoning):
    assert text[: answer_boundary(text)] == reasoning
    # Tokens of one byte, some of them parts of a character, and special ones around.
    pieces = [bytes([byte]) for byte in text.encode()]
    assert reasoning_tokens(pieces) == len(reasoning.encode())


def test_a_token_over_the_boundary_does_not_lie_before_it():
    pieces = [b"<think>", b"so", b" 2", b".</", b"think", b">", b"2"]
    assert reasoning_tokens(pieces) == 3
    assert tokens_before([2, 4, 4, 7], 4) == 3
    assert tokens_before([2, 4, 4, 7], 3) == 1
    assert tokens_before([2, 4], 9) == 2
    assert tokens_before([2, 4], 0) == tokens_before([], 5) == 0


def test_reasoning_of_a_real_tokenizer():
    tokenizer = load_tokenizer("characters")
    ids = tokenizer.encode("<think>7-8=9;9+3=2</think><answer>2</answer>")
    table = tokenizer.token_bytes()
    boundary = reasoning_tokens([table[id] for id in ids])
    assert tokenizer.decode(ids[:boundary]) == "<think>7-8=9;9+3=2"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 9),
        ({"fraction": 0.29}, 2),
        ({"fraction": 0.3}, 3),
        ({"fraction": 0.0}, 0),
        ({"boundary": 4}, 4),
        ({"boundary": 0}, 0),
        ({"stops": {106, 103, 50}}, 3),
        ({"stops": [100]}, 0),
        ({"room": 6}, 5),
        ({"room": 1}, 0),
        ({"room": 0}, 0),
        ({"room": -7}, 0),
        ({"room": 6, "boundary": 4, "stops": {103}}, 3),
    ],
)
def test_limit_literals(options, expected):
    """Of the 10 ids from 100 on, nine tenths unless it says otherwise."""
    options = {"fraction": 0.9, "room": 50} | options
    assert trace_limit(range(100, 110), **options) == expected


@pytest.mark.parametrize(
    ("fraction", "tokens", "expected"),
    [(0.29, 100, 29), (0.57, 100, 57), (0.999999, 3, 2), (1.0, 7, 7), (0.9, 0, 0)],
)
def test_a_share_that_is_whole_on_paper_is_whole(fraction, tokens, expected):
    """In floats .29 of 100 is 28.999999999999996."""
    limit = trace_limit([1] * tokens, fraction=fraction, room=10**6)
    assert limit == expected


def test_no_prefix_says_the_answer_or_ends_the_row():
    rng = np.random.default_rng(0)
    words = [b"so", b" 2", b"<", b"/think>", b"</think>", b"<answer>", b"\\boxed", b""]
    eos, width, capacity = 7, 12, 20
    some = 0
    for _ in range(200):
        trace = rng.choice(8, rng.integers(1, width + 1), p=[0.3, 0.3, *[1 / 15] * 6])
        prompt = int(rng.integers(1, capacity + 3))
        boundary = reasoning_tokens([words[id] for id in trace])
        room = capacity - prompt
        limit = trace_limit(
            trace.tolist(), fraction=0.9, room=room, stops={eos}, boundary=boundary
        )
        padded = np.pad(trace, (0, width - len(trace)))[None].astype(np.int32)
        prefixes, lengths = splice(
            jnp.asarray(padded), ints(limit), jnp.int32(10), jnp.ones(1, bool)
        )
        given = np.asarray(prefixes[0, : lengths[0]])
        np.testing.assert_array_equal(given, trace[: min(10, limit)])
        text = b"".join(words[id] for id in given)
        assert eos not in given
        assert not any(m in text for m in (b"</think>", b"<answer>", b"\\boxed"))
        assert len(given) <= 0.9 * len(trace)
        assert len(given) == 0 or prompt + len(given) + 1 <= capacity
        some += len(given) > 1
    assert some > 20


REWARDS = jnp.array([1.0, NAN, 0.0, 0.5, 0.25, NAN])
GUIDED = jnp.array([True, True, False, False, False, False])


def test_signal_literals():
    assert signal(REWARDS, GUIDED, scope=SignalRows.UNGUIDED) == 0.25
    assert signal(REWARDS, GUIDED, scope=SignalRows.ALL) == 0.4375


@pytest.mark.parametrize("scope", SignalRows)
def test_signal_reacts_to_the_rows_of_its_scope(scope):
    before = signal(REWARDS, GUIDED, scope=scope)
    own = signal(jnp.where(GUIDED, REWARDS, REWARDS + 1), GUIDED, scope=scope)
    other = signal(jnp.where(GUIDED, REWARDS + 1, REWARDS), GUIDED, scope=scope)
    assert own > before
    assert (other > before) == (scope is SignalRows.ALL)


def test_signal_of_no_row_is_nan():
    nothing = jnp.full(6, NAN)
    everyone = jnp.ones(6, bool)
    assert jnp.isnan(signal(nothing, GUIDED, scope=SignalRows.ALL))
    assert jnp.isnan(signal(REWARDS, everyone, scope=SignalRows.UNGUIDED))
    only_guided = jnp.where(GUIDED, REWARDS, NAN)
    assert jnp.isnan(signal(only_guided, GUIDED, scope=SignalRows.UNGUIDED))
    assert signal(only_guided, GUIDED, scope=SignalRows.ALL) == 1


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, [100] * 10),
        (0.4, [100] * 6 + [75, 50, 25, 0]),
        (0.25, [100] * 7 + [80, 40, 0]),
        (1.0, [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]),
        (0.01, [100] * 9 + [0]),
    ],
)
def test_anneal_literals(fraction, expected):
    length = jnp.int32(100)
    for step, each in itertools.chain(enumerate(expected), [(50, expected[-1])]):
        options = {"total_steps": 10, "fraction": fraction}
        for now in (step, jnp.int32(step)):
            actual = anneal(length, now, **options)
            assert actual == each and actual.dtype == jnp.int32
    np.testing.assert_array_equal(
        anneal(ints(100, 7), 9, **options), [expected[-1], 7 if fraction == 0 else 0]
    )


def test_per_prompt_literals():
    rates = jnp.array([0.0, 0.25, 0.9, 0.99, 1 / 3, 1.0, NAN, 2.0, -1.0])
    actual = per_prompt(jnp.int32(100), rates)
    np.testing.assert_array_equal(actual, [100, 75, 10, 1, 66, 0, 100, 0, 100])
    assert actual.dtype == jnp.int32


@pytest.mark.parametrize("samples", [3, 7, 8, 10, 1000])
def test_per_prompt_is_exact(samples):
    solved = np.arange(samples + 1)
    rates = jnp.asarray(solved / samples, jnp.float32)
    for length in (0, 1, samples * 101, 4095):
        expected = [length * (samples - each) // samples for each in solved]
        np.testing.assert_array_equal(per_prompt(jnp.int32(length), rates), expected)
