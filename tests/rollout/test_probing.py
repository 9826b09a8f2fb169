"""What rows would answer: read by hand, asked without a trace, and kept for good."""

import numpy as np
import pytest

from grpo_jax.episode_config import EpisodeConfig
from grpo_jax.records import Origin
from grpo_jax.rewards.base import Probe
from grpo_jax.rollout import episodes, session, stops
from grpo_jax.rollout.probing import Probing, read
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Peek
from grpo_jax.rollout.texts import Request
from tests import helpers
from tests.rollout import test_episodes as plain

PIECES = [b"x", b" ", b"{", b"}", b"y}", b"}z", "ü".encode()[:1], "ü".encode()[1:]]
OPENING = plain.SPEECH.encode("ab")


def probing_of(closing=b"}", nested=b"{", most=8, confidence=0.0, opening=(4,)):
    return Probing(list(opening), closing, nested, most, confidence)


def scores(*probabilities):
    return np.log(np.array(probabilities, np.float32))


@pytest.mark.parametrize(
    ("tokens", "probabilities", "found"),
    [
        # The bracket that ends the answer, and what follows, says nothing of it.
        ([0, 3, 0], [0.5, 0.1, 0.1], Probe("x", 0.5, 0.5, 3)),
        ([0, 0, 3], [0.25, 1.0, 0.1], Probe("xx", 0.5, 0.25, 3)),
        # A token that holds the last of the answer and its end is of the answer.
        ([0, 4], [0.8, 0.2], Probe("xy", 0.4, 0.2, 2)),
        ([0, 5], [0.8, 0.2], Probe("x", 0.8, 0.8, 2)),
        # {x}} ends at the second bracket.
        ([2, 0, 3, 3], [0.5] * 4, Probe("{x}", 0.5, 0.5, 4)),
        ([1, 0, 1, 3], [0.5] * 4, Probe("x", 0.5, 0.5, 4)),
        ([6, 7, 3], [0.5] * 3, Probe("ü", 0.5, 0.5, 3)),
        ([0, 0, 0], [1.0] * 3, Probe("", 0.0, 0.0, 3)),  # no end
        ([3], [1.0], Probe("", 0.0, 0.0, 1)),  # nothing
        ([1, 3], [1.0] * 2, Probe("", 0.0, 0.0, 2)),  # a blank
        ([], [], Probe("", 0.0, 0.0, 0)),  # no room
    ],
)
def test_answers_and_how_sure_they_are(tokens, probabilities, found):
    got = read(Peek(tokens, scores(*probabilities)), probing_of(), PIECES)
    assert got.answer == found.answer and got.tokens == found.tokens
    assert got.confidence == pytest.approx(found.confidence)
    assert got.lowest == pytest.approx(found.lowest)


def test_an_end_of_several_tokens():
    probing = probing_of(closing=b"}}", nested=b"")
    got = read(Peek([0, 3, 0, 3, 3], scores(*[0.5] * 5)), probing, PIECES)
    assert got.answer == "x}x" and got.confidence == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("threshold", "confidence", "ends"),
    [(0.0, 1.0, False), (0.5, 0.5, True), (0.5, 0.49, False), (1.0, 1.0, True)],
)
def test_when_a_row_is_sure_enough(threshold, confidence, ends):
    probe = Probe("x", confidence, confidence, 1)
    assert probing_of(confidence=threshold).ends(probe) is ends


def converse(tiny, probing=None, **limits):
    """Rows, turns, the session, and (text, limit, what it would write) of probes."""
    config = EpisodeConfig(environment="x", max_calls=3, answer_tokens=1, **limits)
    at = helpers.session_of(
        tiny,
        stops=stops.build(helpers.PIECES, plain.STOPS),
        max_rows=8,
        chunk_steps=4,
        max_completion_tokens=plain.ROOM,
    )
    asked, peek = [], at.peek

    def recorded(rows, given, most):
        said = [at.texts.tokens[row, : at.texts.lengths[row]].tolist() for row in rows]
        starts = at.texts.prompt_lengths[rows].tolist()
        room = (at.texts.limits[rows] - at.texts.lengths[rows]).tolist()
        found = peek(rows, given, most)
        asked.extend(zip(said, starts, room, found, strict=True))
        return found

    at.peek = recorded
    talk = episodes.Conversation(at, plain.Echo(), plain.SPEECH, config.seal(), probing)
    rows = talk.begin(plain.REQUESTS, plain.EXAMPLES)
    talk.run()
    return at.trajectories(rows), list(map(talk.turns, rows)), at, asked


@pytest.mark.parametrize("limits", [{}, {"turn_tokens": 7}], ids=str)
def test_probes_leave_nothing_behind(tiny, limits):
    probing = probing_of(closing=b"<", opening=OPENING, nested=b"", most=6)
    rows, turns, at, asked = converse(tiny, probing, **limits)
    expected, unasked, _, _ = converse(tiny, **limits)
    assert helpers.texts_of(rows) == helpers.texts_of(expected)
    np.testing.assert_array_equal(rows.origins, expected.origins)
    np.testing.assert_array_equal(rows.finished, expected.finished)
    np.testing.assert_allclose(
        rows.behavior_log_probs, expected.behavior_log_probs, atol=1e-4
    )
    sampled = helpers.check_log_probs(tiny, rows)
    probes = [turn.probe for of_row in turns for turn in of_row if turn.probe]
    assert len(probes) == len(asked) > 8
    assert sum(each.tokens for each in probes) + sampled == at.stats.sampled_tokens
    # Behind every reply, and behind nothing else.
    for of_row, alone in zip(turns, unasked, strict=True):
        for turn, old in zip(of_row, alone, strict=True):
            assert bool(turn.probe) == bool(turn.document_ids)
            assert (turn.text, turn.query) == (old.text, old.query)
            assert not old.probe


def test_probes_are_greedy(tiny):
    probing = probing_of(closing=b"<", opening=OPENING, nested=b"", most=6)
    *_, asked = converse(tiny, probing)
    setup = helpers.setup_of(tiny.arch, max_completion_tokens=plain.ROOM, max_rows=8)
    lengths = set()
    for said, start, room, found in asked[:12]:
        prefix = said[start:] + OPENING
        request = Request(
            said[:start],
            prompt_id=0,
            sample=0,
            prefix=prefix,
            max_tokens=len(prefix) + min(6, room - len(OPENING)),
        )
        rows, _ = session.complete(
            setup,
            tiny.view,
            [request],
            sampling=Sampling(0.0),
            key=helpers.jax.random.key(0),
            stops=stops.build(helpers.PIECES, plain.STOPS),
        )
        new = slice(len(said) + len(OPENING), rows.lengths[0])
        assert rows.tokens[0, new].tolist() == found.tokens
        np.testing.assert_allclose(
            rows.behavior_log_probs[0, new], found.log_probs, atol=1e-4
        )
        lengths.add(len(found.tokens))
    assert max(lengths) == 6


def test_a_row_that_is_sure_answers_for_good(tiny):
    probing = probing_of(
        closing=b"<", opening=OPENING, nested=b"", most=6, confidence=1e-9
    )
    rows, turns, _, _ = converse(tiny, probing)
    helpers.check_log_probs(tiny, rows)
    ended = 0
    for row, of_row in enumerate(turns):
        said = plain.stretches(rows, row)
        forced = [place for place, (origin, _) in enumerate(said) if origin == 6]
        sure = [turn for turn in of_row if turn.probe and probing.ends(turn.probe)]
        assert len(forced) == len(sure) <= 1
        if not sure:
            continue
        ended += 1
        (place,) = forced
        assert said[place - 1][0] == Origin.OBSERVATION and said[place][1] == "ab"
        # One turn more, which may ask nothing, and says what was put into its mouth.
        assert of_row[-2] is sure[0] and not of_row[-1].query
        assert of_row[-1].text == "".join(text for _, text in said[place:])
    assert ended > 1
