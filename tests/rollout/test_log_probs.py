"""Whatever becomes of a row, its log-probs are those of one pass over all of it."""

import dataclasses
import itertools

import numpy as np
import pytest

from grpo_jax.records import Origin
from grpo_jax.rollout import decoder, stops
from grpo_jax.rollout.texts import Request, Status
from tests import helpers

pytestmark = pytest.mark.system

# Rows of these tests end after a dozen tokens, or meet a stop as often.
ENDS = (3, 17, 29, 41)
TABLE = stops.build(helpers.PIECES, ("<b", "aab"))


def groups(*sizes, prompt_tokens=9, **changes):
    """Requests for groups of these sizes, each with a prompt of its own length."""
    rng = np.random.default_rng(len(sizes))
    prompts = [rng.integers(4, 48, prompt_tokens - i).tolist() for i in range(4)]
    return [
        Request(prompts[i % 4] + [4 + i], i, sample, **changes)
        for i, size in enumerate(sizes)
        for sample in range(size)
    ]


def limited(requests, *limits):
    """The requests with these limits in turn."""
    pairs = zip(requests, itertools.cycle(limits), strict=False)
    return [dataclasses.replace(each, max_tokens=limit) for each, limit in pairs]


def check(model, at, temperature=4.0):
    everything = at.trajectories(range(len(at.texts)))
    sampled = helpers.check_log_probs(model, everything, temperature)
    assert (at.texts.lengths <= at.texts.limits).all()
    return sampled


def test_growth_refill_and_halving(model, monkeypatch):
    """24 rows on 8 places, which become 4; the longest outgrow the first 64 slots."""
    monkeypatch.setattr(decoder, "_SMALLEST_ROWS", 4)
    at = helpers.session_of(
        model, temperature=0.7, max_rows=8, max_completion_tokens=72, eos_ids=()
    )
    at.submit(limited(groups(*[4] * 6), 5, 9, 14, 72))
    helpers.run_out(at)
    assert check(model, at, temperature=0.7) == 6 * (5 + 9 + 14 + 72)
    assert at.stats.refills == 16 and at.stats.halvings == 1


def test_lines_of_several_rows_are_refilled(tiny):
    """Long prompts: lines of four rows, each given up as a whole."""
    at = helpers.session_of(
        tiny, max_rows=8, max_prompt_tokens=60, max_completion_tokens=16, eos_ids=ENDS
    )
    at.submit(groups(4, 4, 3, 4, 2, prompt_tokens=50))
    helpers.run_out(at)
    assert check(tiny, at) > 100
    assert at.stats.refills == 9 and at.stats.prefill_tokens == 50 + 49 + 48 + 47 + 50


def test_groups_of_any_size_share_a_prompt_and_differ_in_prefixes(model, monkeypatch):
    monkeypatch.setattr(decoder, "_SMALLEST_ROWS", 32)
    at = helpers.session_of(model, max_rows=32, eos_ids=ENDS, chunk_steps=4)
    lengths = itertools.cycle([0, 1, 3, 0, 2, 5])
    rows = at.submit(
        [
            dataclasses.replace(each, prefix=range(20, 20 + length))
            for each, length in zip(groups(1, 3, 4, 8), lengths, strict=False)
        ]
    )
    given = at.texts.lengths[rows] - at.texts.prompt_lengths[rows]
    at.advance()
    assert check(model, at) > 16
    helpers.run_out(at)
    assert check(model, at) > 100
    assert set(given) == {0, 1, 2, 3, 5}
    prefixes = (at.texts.origins == Origin.GUIDANCE).sum(1)
    np.testing.assert_array_equal(prefixes, given)
    # Each prompt once, each prefix on its own; the last token of a row is pending.
    assert at.stats.prefill_tokens == 9 + 8 + 7 + 6 + given.sum()


def conversation(model, *limits, **options):
    """Two rows for each of four prompts, in a grid of four by two."""
    at = helpers.session_of(
        model,
        stops=TABLE,
        max_rows=8,
        max_completion_tokens=24,
        chunk_steps=4,
        **{"eos_ids": (), **options},
    )
    rows = at.submit(limited(groups(2, 2, 2, 2), *limits or [24]))
    return at, rows


def test_splices_of_unequal_lengths_while_others_go_on(model):
    at, rows = conversation(model)
    rng, waiting, together = np.random.default_rng(0), {}, 0
    while at.active or waiting:
        stopped = at.advance()
        together += bool(waiting) and (at.texts.status == Status.LIVE).any()
        for row in [row for row, chunks in waiting.items() if not chunks]:
            at.append(row, rng.integers(4, 48, rng.integers(0, 6)).tolist())
            at.resume(row)
        waiting = {row: chunks - 1 for row, chunks in waiting.items() if chunks}
        for row in stopped:
            if at.texts.status[row] == Status.SUSPENDED:
                waiting[row] = int(rng.integers(3))
    assert together > 2
    assert (at.texts.origins == Origin.OBSERVATION).sum() > 20
    assert check(model, at) > 80
    np.testing.assert_array_equal(at.texts.lengths[rows], at.texts.limits[rows])


def go_on(at):
    """Advances; rows go on behind a stop. Returns those that are done."""
    stopped = at.advance()
    for row in stopped:
        if at.texts.status[row] == Status.SUSPENDED:
            at.resume(row)
    return [row for row in stopped if at.texts.status[row] == Status.DONE]


def test_clones_of_rows_that_have_a_place_are_copied(model):
    at, rows = conversation(model, 4, 24, 4, 24, 4, 4, 4, 4)
    live, cut = rows[1], rows[2]
    short = set(rows) - {live, cut, rows[3]}
    while (at.texts.status[list(short)] != Status.DONE).any():
        if cut in go_on(at):
            at.truncate(cut, int(at.texts.lengths[cut]) - 2)
    shown = at.stats.prefill_tokens

    def clone(parent, less, sample):
        length = int(at.texts.lengths[parent]) - less
        return at.clone(parent, length, prompt_id=9, sample=sample)

    # One beside its parent, one in a free line, and one of a clone that waits itself.
    clones = [clone(live, 0, 0), clone(live, 3, 1)]
    clones += [clone(clones[0], 1, 2), clone(cut, 1, 3)]
    at.append(clones[3], [30, 31], Origin.EXPERT)
    assert at.texts.status[cut] == Status.SUSPENDED
    go_on(at)
    assert (at.texts.status[clones] != Status.QUEUED).all()
    # Of all four only one token had to be shown; the last of a row is pending.
    assert at.stats.prefill_tokens == shown + 1
    at.resume(cut)
    while at.active:
        go_on(at)
    assert check(model, at) > 8 * 4


def test_clones_of_done_rows_are_copied_while_they_are_held(model):
    at, rows = conversation(model, 6, hold=True)
    while at.active:
        go_on(at)
    shown = at.stats.prefill_tokens
    parent, prompt = rows[0], int(at.texts.prompt_lengths[rows[0]])
    at.release(rows[1])
    copied = at.clone(parent, prompt + 4, prompt_id=9, sample=0)
    go_on(at)
    assert at.stats.prefill_tokens == shown
    at.release(parent)
    computed = at.clone(parent, prompt + 4, prompt_id=9, sample=1)
    go_on(at)
    # The prompt is still there, from the clone; the rest had to be shown.
    assert at.stats.prefill_tokens == shown + 4
    while at.active:
        go_on(at)
    first, second = at.texts.tokens[[copied, computed]]
    np.testing.assert_array_equal(first[: prompt + 4], second[: prompt + 4])
    assert check(model, at) == 10 * 6


@pytest.mark.parametrize("has_place", [True, False])
def test_a_row_that_is_cut_draws_again_what_it_drew(model, has_place):
    at, rows = conversation(model, 8)
    row = rows[2]
    while row not in go_on(at):
        assert at.active
    before = at.texts.tokens[row].copy()
    if not has_place:
        while at.active:
            go_on(at)
        at.advance()
    cut = int(at.texts.prompt_lengths[row]) + 3
    at.truncate(row, cut)
    again = at.clone(row, cut, prompt_id=9, sample=0)
    at.resume(row)
    while at.active:
        go_on(at)
    np.testing.assert_array_equal(at.texts.tokens[row], before)
    assert (at.texts.tokens[again] != before).any()
    at.truncate(row, cut)
    at.append(row, [40], Origin.FORCED)
    at.resume(row)
    while at.active:
        go_on(at)
    assert at.texts.origins[row, cut : cut + 2].tolist() == [
        Origin.FORCED,
        Origin.SAMPLED,
    ]
    assert check(model, at) == 9 * 8 - 1
