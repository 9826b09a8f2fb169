"""What a session lets its host do with rows, and what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax.records import Origin
from grpo_jax.rollout import session, stops
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.setup import bucket
from grpo_jax.rollout.texts import Request, Status
from tests import helpers

STOPS = ("<b", "aab", "b<<")
TABLE = stops.build(helpers.PIECES, STOPS)
REQUESTS = helpers.requests_of(8, helpers.TINY.vocab_size)


def session_of(model, **changes):
    """A session whose rows end by their limits and wait at stops."""
    options = dict(stops=TABLE, max_rows=8, chunk_steps=4, eos_ids=())
    return helpers.session_of(model, **{**options, **changes})


def complete(model, requests, **changes):
    setup = helpers.setup_of(
        model.arch, max_rows=8, chunk_steps=4, **{"eos_ids": (), **changes}
    )
    options = dict(sampling=Sampling(4.0), key=jax.random.key(3), stops=TABLE)
    return session.complete(setup, model.view, requests, **options)


def piece(tokens):
    return b"".join(helpers.PIECES[token] for token in tokens)


def check_stop(at, row, start):
    """The last token is the first that completes a stop behind `start`."""
    tokens = at.texts.tokens[row, start : at.texts.lengths[row]].tolist()
    pieces = [helpers.PIECES[token] for token in tokens]
    index, extra = stops.overshoot(STOPS, pieces)
    assert index == at.texts.stops[row]
    # The text stays as it was sampled, with what follows the stop in its token.
    assert piece(tokens).endswith(
        STOPS[index].encode() + piece(tokens)[len(piece(tokens)) - extra :]
    )
    return index, extra


def test_rows_wait_at_the_token_that_completes_a_stop(tiny):
    at = session_of(tiny)
    rows, found = at.submit(REQUESTS), []
    begun = dict(zip(rows, at.texts.prompt_lengths[rows], strict=True))
    while at.active:
        for row in at.advance():
            if at.texts.status[row] == Status.SUSPENDED:
                found.append(check_stop(at, row, begun[row]))
                begun[row] = at.texts.lengths[row]
                at.resume(row)
    assert {index for index, _extra in found} == {0, 1, 2}
    assert sum(extra > 0 for _index, extra in found) > 3
    # Whatever has not stopped again had no stop to find.
    for row, start in begun.items():
        rest = piece(at.texts.tokens[row, start : at.texts.lengths[row]])
        assert not any(stop.encode() in rest for stop in STOPS)
    assert not at.texts.finished.any()


def test_a_stop_finishes_a_row_that_nobody_resumes(tiny):
    rows, stats = complete(tiny, REQUESTS)
    ends = rows.lengths < rows.prompt_lengths + 20
    assert 0 < ends.sum() < 8 or ends.all()
    for row in np.flatnonzero(ends):
        start, end = rows.prompt_lengths[row], rows.lengths[row]
        pieces = [helpers.PIECES[token] for token in rows.tokens[row, start:end]]
        stops.overshoot(STOPS, pieces)
    np.testing.assert_array_equal(rows.finished[ends], True)
    sampled = rows.lengths - rows.prompt_lengths
    assert stats.sampled_tokens == sampled.sum()


def test_the_search_begins_anew_behind_given_tokens(tiny):
    """Half a stop before them is forgotten, and what they say is not searched."""
    at, letter = session_of(tiny), helpers.PIECES.index
    requests = helpers.requests_of(32, 48, max_tokens=7, prefix=[letter(b"<")] * 2)
    rows = at.submit(requests)
    assert not at.texts.stop_states.any()
    begun = {}
    while at.active:
        for row in at.advance():
            if at.texts.status[row] == Status.SUSPENDED:
                start = begun.get(row, int(at.texts.prompt_lengths[row]) + 2)
                check_stop(at, row, start)
                at.finish(row)
            elif row not in begun and at.texts.stop_states[row]:
                at.truncate(row, int(at.texts.lengths[row]) - 4)
                at.append(row, [letter(b"aa"), letter(b"a")])
                assert not at.texts.stop_states[row]
                begun[row] = int(at.texts.lengths[row])
                at.resume(row)
    assert len(begun) > 2
    assert (at.texts.status[rows] == Status.DONE).all()


def test_rows_end_at_an_end_token_or_at_their_limit(tiny):
    requests = [
        dataclasses.replace(each, max_tokens=limit)
        for each, limit in zip(REQUESTS, [0, 1, 3, 4, 5, 9, 99, 20], strict=True)
    ]
    ends = tuple(range(0, 48, 5))
    at = session_of(tiny, stops=None, eos_ids=ends)
    rows = at.submit(requests)
    helpers.run_out(at)
    seen = at.trajectories(rows)
    limits = np.array([20, 1, 3, 4, 5, 9, 20, 20])
    np.testing.assert_array_equal(at.texts.limits - at.texts.prompt_lengths, limits)
    for row, limit in zip(rows, limits, strict=True):
        start, end = seen.prompt_lengths[row], seen.lengths[row]
        completion = seen.tokens[row, start:end]
        is_end = np.isin(completion, ends)
        assert not is_end[:-1].any() and seen.finished[row] == is_end[-1]
        assert len(completion) == limit or is_end[-1]
        assert not seen.tokens[row, end:].any()
    assert 0 < seen.finished.sum() < 8


def test_an_end_token_ends_a_row_even_where_a_stop_ends(tiny):
    """What stands for the end of a sequence may have a text, and be a stop."""
    token = helpers.PIECES.index(b"<b")
    at = session_of(tiny, eos_ids=(token,))
    rows = at.submit(REQUESTS)
    while at.active:
        for row in at.advance():
            if at.texts.status[row] == Status.SUSPENDED:
                at.resume(row)
    ended = at.texts.tokens[rows, at.texts.lengths[rows] - 1] == token
    assert ended.any()
    np.testing.assert_array_equal(at.texts.finished, ended)
    assert (at.texts.status == Status.DONE).all()


def test_prefixes_are_marked_and_continued(tiny):
    requests = [
        dataclasses.replace(REQUESTS[0], prefix=[40, 41], sample=0),
        dataclasses.replace(
            REQUESTS[1], prefix=[42], sample=1, prefix_origin=Origin.EXPERT
        ),
        dataclasses.replace(REQUESTS[2], prefix=range(20), sample=2),
        dataclasses.replace(REQUESTS[3], prefix=[43] * 3, max_tokens=3, sample=3),
    ]
    rows, _stats = complete(tiny, requests, eos_ids=(3,))
    start = len(REQUESTS[0].prompt)
    assert (rows.origins[:, :start] == Origin.PROMPT).all()
    assert rows.tokens[0, start : start + 2].tolist() == [40, 41]
    assert rows.origins[0, start : start + 3].tolist() == [3, 3, 2]
    assert rows.origins[1, start : start + 2].tolist() == [Origin.EXPERT, 2]
    # A prefix may leave no room: the row is done as it is, and not finished.
    assert rows.tokens[2, start : start + 20].tolist() == list(range(20))
    np.testing.assert_array_equal(rows.lengths[2:], [start + 20, start + 3])
    assert not rows.finished[2:].any()


def test_truncate_clone_finish_and_release_change_where_a_row_stands(tiny):
    at = session_of(tiny, stops=None)
    row = at.submit(REQUESTS[:1])[0]
    assert at.active and at.texts.status[row] == Status.QUEUED
    at.advance()
    assert at.texts.status[row] == Status.LIVE
    low, high = int(at.texts.prompt_lengths[row]), int(at.texts.lengths[row])
    clone = at.clone(row, low + 2, prompt_id=5, sample=0)
    assert at.texts.lengths[clone] == low + 2 and at.texts.parents[clone] == row
    for name in ("tokens", "origins", "behavior_log_probs"):
        ours, theirs = (getattr(at.texts, name)[each] for each in (clone, row))
        np.testing.assert_array_equal(ours[: low + 2], theirs[: low + 2])
        assert not ours[low + 2 :].any() and theirs[low + 2 : high].any()
    helpers.run_out(at)
    assert (at.texts.status == Status.DONE).all()
    at.truncate(row, low + 1)
    assert at.texts.status[row] == Status.SUSPENDED and not at.active
    at.finish(row)
    assert at.texts.finished[row] and at.texts.lengths[row] == low + 1
    at.release(row)
    full = at.clone(clone, int(at.texts.lengths[clone]), prompt_id=5, sample=1)
    assert at.texts.status[full] == Status.DONE and not at.active
    # A row that fills up while it waits is done when its turn comes.
    filled = at.clone(clone, low, prompt_id=5, sample=2)
    at.append(filled, [9] * 30)
    at.advance()
    assert at.texts.lengths[filled] == at.texts.limits[filled] and not at.active


def test_a_resumed_row_without_room_is_done(tiny):
    at = session_of(tiny, stops=None)
    row = at.submit(REQUESTS[:1])[0]
    helpers.run_out(at)
    at.truncate(row, int(at.texts.limits[row]) - 2)
    at.append(row, [7, 8, 9], Origin.FORCED)
    at.resume(row)
    assert at.texts.status[row] == Status.DONE and not at.texts.finished[row]
    assert at.texts.tokens[row, at.texts.limits[row] - 2 :][:2].tolist() == [7, 8]


def test_rows_may_be_submitted_at_any_time(tiny):
    at = session_of(tiny, stops=None)
    assert at.submit([]) == [] and at.advance() == [] and not at.active
    first = at.submit(REQUESTS[:4])
    at.advance()
    late = at.submit(REQUESTS[4:])
    helpers.run_out(at)
    together = session_of(tiny, stops=None)
    rows = together.submit(REQUESTS)
    helpers.run_out(together)
    expected = helpers.texts_of(together.trajectories(rows))
    assert helpers.texts_of(at.trajectories(first + late)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(prompt=[]), "prompt 9 has 0 tokens: between 1 and max_prompt_tokens=12"),
        (dict(prompt=[5] * 13), "prompt 9 has 13 tokens"),
        (dict(prefix=[5] * 21), "prefix of prompt 9 has 21 tokens: at most 20"),
        (dict(prefix=[5] * 4, max_tokens=3), "prefix of prompt 9 has 4 tokens: at m"),
    ],
)
def test_impossible_requests_are_refused_before_any_row_is_added(
    tiny, changes, message
):
    at = session_of(tiny)
    bad = dataclasses.replace(Request([5, 6], 9, 0), **changes)
    with pytest.raises(ValueError, match=message):
        at.submit([REQUESTS[0], bad])
    assert not len(at.texts) and not at.active


def test_impossible_lengths_and_states_are_refused(tiny):
    at = session_of(tiny, stops=None)
    row = at.submit(REQUESTS[:1])[0]
    at.advance()
    low, high = int(at.texts.prompt_lengths[row]), int(at.texts.lengths[row])
    for length in (low - 1, high + 1):
        message = f"to {length} tokens: its prompt has {low} and it has {high}"
        with pytest.raises(ValueError, match=message):
            at.clone(row, length, prompt_id=9, sample=0)
        with pytest.raises(ValueError, match=message):
            at.truncate(row, length)
    assert len(at.texts) == 1
    for call in (at.resume, at.finish, at.release):
        with pytest.raises(AssertionError, match=f"row {row} is not"):
            call(row)
    with pytest.raises(AssertionError, match=f"row {row} is live"):
        at.append(row, [5])
    with pytest.raises(AssertionError, match=f"row {row}"):
        at.truncate(row, low)


def test_streaming_sees_rows_grow(tiny):
    seen = []
    session.complete(
        helpers.setup_of(tiny.arch, max_rows=8, chunk_steps=4),
        tiny.view,
        REQUESTS,
        sampling=Sampling(4.0),
        key=jax.random.key(3),
        on_chunk=lambda at: seen.append(int(at.texts.lengths.sum())),
    )
    assert len(seen) > 1 and seen == sorted(seen)


@pytest.mark.parametrize(
    ("size", "maximum", "expected_size"),
    [(1, 100, 16), (16, 100, 16), (17, 100, 32), (65, 100, 100), (9, 12, 12)],
)
def test_buckets(size, maximum, expected_size):
    assert bucket(size, maximum) == expected_size
