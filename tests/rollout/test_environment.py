"""A toy environment, written against a session as a user would write it."""

import dataclasses

import numpy as np
import pytest

from grpo_jax.records import Origin
from grpo_jax.rollout import stops
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.texts import Request, Status
from tests import helpers

TURNS, LATENCY = 3, 2
TABLE = stops.build(helpers.PIECES, ("<b", "b<"))


def look_up(query: bytes) -> list[int]:
    """The tool: what it finds, and how much, depends on the query."""
    letters = query.count(b"a")
    return [4 + letters] * (1 + letters % 5)


@dataclasses.dataclass
class Turn:
    """A question a row waits to have answered."""

    row: int
    query: bytes
    ready: int


def converse(session: Session, requests: list[Request]) -> list[int]:
    """Answers the questions of every row, up to TURNS of them, LATENCY chunks late."""
    rows = session.submit(requests)
    asked, read = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    turns, chunk = [], 0
    while session.active or turns:
        for row in session.advance():
            if session.texts.status[row] != Status.SUSPENDED:
                continue
            start = max(read[row], int(session.texts.prompt_lengths[row]))
            said = session.texts.tokens[row, start : session.texts.lengths[row]]
            query = b"".join(helpers.PIECES[token] for token in said)
            turns.append(Turn(row, query, chunk + LATENCY))
        chunk += 1
        for turn in [turn for turn in turns if turn.ready <= chunk]:
            turns.remove(turn)
            asked[turn.row] += 1
            if asked[turn.row] == TURNS:
                session.finish(turn.row)
                continue
            session.append(turn.row, look_up(turn.query))
            read[turn.row] = int(session.texts.lengths[turn.row])
            session.resume(turn.row)
    return rows


REQUESTS = helpers.requests_of(8, helpers.TINY.vocab_size, seed=2)
OPTIONS = dict(stops=TABLE, max_rows=8, chunk_steps=4, max_completion_tokens=40)


@pytest.fixture(scope="module")
def conversations(tiny):
    """A finished session, and how much was live while some row waited."""
    session = helpers.session_of(tiny, **OPTIONS)
    plain, together = session.advance, []

    def advance():
        waits = (session.texts.status == Status.SUSPENDED).any()
        before = session.stats.sampled_tokens
        stopped = plain()
        together.append(waits and session.stats.sampled_tokens - before)
        return stopped

    session.advance = advance
    rows = converse(session, REQUESTS)
    return session.trajectories(rows), together, session


def spans(origins):
    """What follows the prompt: (origin, tokens) of each stretch."""
    codes = origins[origins > Origin.PROMPT]
    ends = [*np.flatnonzero(np.diff(codes)) + 1, len(codes)]
    starts = [0, *ends[:-1]]
    return [(int(codes[a]), int(b - a)) for a, b in zip(starts, ends, strict=True)]


def test_observations_follow_the_questions_they_answer(conversations):
    rows, _together, session = conversations
    seen = 0
    for row, _request in enumerate(REQUESTS):
        start, stretches = int(rows.prompt_lengths[row]), spans(rows.origins[row])
        tokens = rows.tokens[row]
        for (origin, size), (_next, given) in zip(
            stretches[::2], stretches[1::2], strict=False
        ):
            assert origin == Origin.SAMPLED
            query = b"".join(helpers.PIECES[t] for t in tokens[start : start + size])
            assert stops.overshoot(TABLE.stops, [query])
            found = tokens[start + size : start + size + given].tolist()
            whole = look_up(query)
            assert found == whole[: rows.lengths[row] - start - size]
            start, seen = start + size + given, seen + 1
        assert [origin for origin, _size in stretches[1::2]] == [Origin.OBSERVATION] * (
            len(stretches) // 2
        )
        assert len(stretches) // 2 < TURNS
        # A row is finished by an end token or behind its last question.
        if rows.finished[row]:
            assert stretches[-1][0] == Origin.SAMPLED
        else:
            assert rows.lengths[row] == session.texts.limits[row]
    assert seen > 8
    lengths = {
        size
        for row in rows.origins
        for origin, size in spans(row)
        if origin == Origin.OBSERVATION
    }
    assert len(lengths) > 2


def test_other_rows_go_on_while_one_waits(conversations):
    _rows, together, _session = conversations
    assert sum(count > 0 for count in together) > 3


def test_log_probs_are_those_of_the_final_text(tiny, conversations):
    rows, _together, session = conversations
    sampled = helpers.check_log_probs(tiny, rows)
    assert sampled == session.stats.sampled_tokens
    # Each prompt was shown once, and what the tool found.
    given = (rows.origins == Origin.OBSERVATION).sum()
    prompts = sum(len(request.prompt) - 1 for request in REQUESTS[::4])
    assert session.stats.prefill_tokens <= prompts + given


def test_a_conversation_is_the_same_alone(tiny, conversations):
    rows, _together, _session = conversations
    together = helpers.texts_of(rows)
    for request, expected in zip(REQUESTS, together, strict=True):
        alone = helpers.session_of(tiny, **OPTIONS)
        row = converse(alone, [request])
        assert helpers.texts_of(alone.trajectories(row)) == [expected]
