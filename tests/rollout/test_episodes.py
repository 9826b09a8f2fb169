"""Rows ask, are answered and go on: what is spliced, recorded, limited and refused."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Notice, Reply
from grpo_jax.episode_config import EpisodeConfig
from grpo_jax.objective import losses, weights
from grpo_jax.policy import sharding
from grpo_jax.records import Origin
from grpo_jax.rewards.reading import Query
from grpo_jax.rollout import episodes, stops
from tests import helpers

LETTERS = "ab<"
SPEECH = episodes.Speech(
    lambda text: [4 + LETTERS.index(letter) for letter in text], helpers.PIECES
)
STOPS = ("<b", "b<")
REQUESTS = helpers.requests_of(8, helpers.TINY.vocab_size, seed=2)
EXAMPLES = [Example(id=r.prompt_id, question="", reference="") for r in REQUESTS]
ROOM = 40


class Echo:
    """Repeats as many a's as a query has; a query with `bad` in it is malformed."""

    def __init__(self, bad="-", failing="-"):
        self.stops, self._bad, self._failing = STOPS, bad, failing
        self.asked, self.threads = [], set()

    def reset(self, examples, histories):
        self.examples, self.histories = list(examples), histories

    def read(self, turn):
        return Query("" if self._bad in turn else turn, malformed=self._bad in turn)

    def step(self, rows, queries):
        self.asked.append(list(zip(rows, queries, strict=True)))
        self.threads.add(threading.get_ident())
        return [self._reply(query) for query in queries]

    def _reply(self, query):
        if self._failing in query:
            return Reply("it is down", failed=True)
        letters = query.count("a")
        return Reply("a" * (1 + letters) + "<<", "<<", (f"d{letters}",))

    def notice(self, notice):
        return Reply("bb" if notice is Notice.LAST else "ba", "a")

    def describe(self):
        return {}

    def take_metrics(self):
        return {}

    def close(self):
        pass


def converse(tiny, environment=None, requests=REQUESTS, hook=None, **limits):
    _, rows, talk, session = talk_of(tiny, environment, requests, hook, **limits)
    return session.trajectories(rows), list(map(talk.turns, rows)), session


def talk_of(tiny, environment=None, requests=REQUESTS, hook=None, mesh=None, **limits):
    config = EpisodeConfig(environment="x", **{"answer_tokens": 1, **limits}).seal()
    session = helpers.session_of(
        tiny,
        stops=stops.build(helpers.PIECES, STOPS),
        max_rows=8,
        chunk_steps=4,
        max_completion_tokens=ROOM,
        mesh=mesh,
    )
    if hook:
        hook(session)
    environment = environment or Echo()
    talk = episodes.Conversation(session, environment, SPEECH, config)
    rows = talk.begin(requests, EXAMPLES[: len(requests)])
    talk.run()
    return environment, rows, talk, session


def stretches(rows, row):
    """(origin, text) of each stretch of equal origins behind the prompt."""
    start, end = rows.prompt_lengths[row], rows.lengths[row]
    found = []
    for token, origin in zip(
        rows.tokens[row, start:end], rows.origins[row, start:end], strict=True
    ):
        if not found or found[-1][0] != origin:
            found.append([int(origin), b""])
        found[-1][1] += helpers.PIECES[token]
    return [(origin, said.decode()) for origin, said in found]


def test_what_was_asked_is_answered_and_recorded(tiny):
    environment = Echo()
    rows, turns, _ = converse(tiny, environment, max_calls=3)
    assert environment.examples == EXAMPLES
    assert environment.histories == [[]] * 8
    answered = 0
    for row, of_row in enumerate(turns):
        said = stretches(rows, row)
        written = [text for origin, text in said if origin == Origin.SAMPLED]
        assert written == [turn.text for turn in of_row if turn.text]
        shown = [text for origin, text in said if origin == Origin.OBSERVATION]
        for turn, text in zip(of_row, shown, strict=False):
            if turn.query and turn.document_ids:
                assert turn.query == turn.text
                assert text == environment._reply(turn.query).text
                assert turn.document_ids == environment._reply(turn.query).document_ids
                answered += 1
        # Queries end at a stop, which is the first one of its turn.
        for turn in of_row:
            if turn.query:
                assert any(stop in turn.query for stop in STOPS)
    assert answered > 8
    assert {len(of_row) for of_row in turns} != {1}
    assert threading.get_ident() not in environment.threads


def test_tokens_are_those_that_were_sampled(tiny):
    rows, _, session = converse(tiny, max_calls=3)
    sampled = helpers.check_log_probs(tiny, rows)
    assert sampled == session.stats.sampled_tokens
    assert (rows.origins == Origin.OBSERVATION).sum() > 20


def test_others_are_decoded_while_one_waits(tiny):
    together = []

    def hook(session):
        plain = session.advance

        def advance():
            waits = (session.texts.status == 2).any()
            before = session.stats.sampled_tokens
            stopped = plain()
            together.append(waits and session.stats.sampled_tokens > before)
            return stopped

        session.advance = advance

    converse(tiny, hook=hook, max_calls=3)
    assert sum(together) > 3


def test_an_episode_is_the_same_alone(tiny):
    rows, turns, _ = converse(tiny, max_calls=3)
    for number in (0, 3, 6):
        alone, own, _ = converse(
            tiny, requests=REQUESTS[number : number + 1], max_calls=3
        )
        assert own == [turns[number]]
        assert helpers.texts_of(alone) == [helpers.texts_of(rows)[number]]


def test_who_has_no_call_left_is_told_and_may_write_one_turn_more(tiny):
    rows, turns, _ = converse(tiny, max_calls=1)
    told = 0
    for row, of_row in enumerate(turns):
        said = stretches(rows, row)
        shown = [text for origin, text in said if origin == Origin.OBSERVATION]
        assert len(shown) <= 2 and sum(bool(turn.query) for turn in of_row) <= 1
        if len(shown) == 2:
            told += 1
            assert shown[1] == "bb"
            assert len(of_row) <= 3
    assert told > 2
    _, turns, _ = converse(tiny, max_calls=0)
    assert not any(turn.query for of_row in turns for turn in of_row)


def test_a_query_that_cannot_be_read_is_told_so_and_counts_as_a_call(tiny):
    rows, turns, _ = converse(tiny, Echo(bad="aa"), max_calls=2)
    malformed = [turn for of_row in turns for turn in of_row if turn.malformed]
    assert malformed and all("aa" in turn.text for turn in malformed)
    for row, of_row in enumerate(turns):
        shown = [
            text
            for origin, text in stretches(rows, row)
            if origin == Origin.OBSERVATION
        ]
        assert len(shown) <= 3
        for turn, text in zip(of_row, shown, strict=False):
            if turn.malformed and text != "bb":
                assert text == "ba"


def test_a_failed_tool_ends_its_rows_and_is_recorded(tiny):
    rows, turns, _ = converse(tiny, Echo(failing="aa"), max_calls=3)
    failed = [of_row for of_row in turns if any(turn.failed for turn in of_row)]
    assert 0 < len(failed) < len(turns)
    for of_row in failed:
        assert of_row[-1].failed and not any(turn.failed for turn in of_row[:-1])
    helpers.check_log_probs(tiny, rows)


def test_a_tool_that_always_fails_stops_the_run(tiny):
    with pytest.raises(ConnectionError, match=r"all \d+ queries.*it is down"):
        converse(tiny, Echo(failing=""), max_calls=3)


def test_few_failures_may_be_the_fault_of_their_queries(tiny):
    _, turns, _ = converse(tiny, Echo(failing=""), REQUESTS[:3], max_calls=3)
    failed = [of_row[-1].failed for of_row in turns]
    assert any(failed)


def test_a_long_reply_is_cut_before_its_closing_tag(tiny):
    rows, turns, _ = converse(tiny, max_calls=3, reply_tokens=4)
    lengths = set()
    for row, of_row in enumerate(turns):
        shown = [
            text
            for origin, text in stretches(rows, row)
            if origin == Origin.OBSERVATION
        ]
        for turn, text in zip(of_row, shown, strict=False):
            if turn.query:
                lengths.add(len(text))
                assert text.endswith("<<") and len(text) <= 4
    assert max(lengths) == 4
    # What is cut is masked to its last token.
    assert not (rows.behavior_log_probs[rows.origins == Origin.OBSERVATION]).any()


def test_what_was_shown_has_no_gradient_and_is_read(tiny):
    rows, _, _ = converse(tiny, max_calls=3, reply_tokens=4)
    shown = rows.origins == Origin.OBSERVATION
    log_probs = helpers.log_probs_of(tiny, rows.tokens)
    counted = weights.loss_weights(
        weights.loss_mask(jnp.asarray(rows.origins)),
        loss=choices.Loss.GRPO,
        aggregation=choices.Aggregation.TOKEN_MEAN,
        max_completion_tokens=ROOM,
    )

    def loss(values):
        advantages = jnp.ones(len(rows.tokens))
        grpo = choices.Loss.GRPO
        bounds = dict(clip_low=0.2, clip_high=0.2)
        return losses.policy_loss(
            values, None, None, advantages, counted, loss=grpo, **bounds
        )[0]

    gradient = np.asarray(jax.grad(loss)(log_probs))
    assert shown.sum() > 20 and not gradient[shown].any()
    assert (gradient[rows.origins == Origin.SAMPLED] != 0).all()
    # Other documents: what the policy wrote after them has another probability.
    row = int(np.argmax(shown.sum(axis=1)))
    at = int(np.flatnonzero(shown[row])[0])
    other = rows.tokens.copy()
    other[row, at] = 4 + (other[row, at] - 3) % len(LETTERS)
    moved = np.abs(np.asarray(helpers.log_probs_of(tiny, other) - log_probs)[row])
    later = np.arange(len(moved)) > at
    assert (moved[later & (rows.origins[row] == Origin.SAMPLED)] > 1e-4).all()
    assert not moved[~later & (np.arange(len(moved)) < at)].any()


def test_a_turn_has_its_own_limit(tiny):
    rows, turns, _ = converse(tiny, max_calls=3, turn_tokens=3)
    for row in range(len(turns)):
        written = [
            text for origin, text in stretches(rows, row) if origin == Origin.SAMPLED
        ]
        pieces = max(map(len, helpers.PIECES))
        assert all(len(text) <= 3 * pieces for text in written)
    sampled = (rows.origins == Origin.SAMPLED).sum(axis=1)
    assert sampled.min() <= 3 and not rows.finished.all()


def test_a_reply_without_room_for_an_answer_ends_the_episode(tiny):
    rows, turns, _ = converse(tiny, max_calls=9, answer_tokens=30)
    for row, of_row in enumerate(turns):
        length = rows.lengths[row] - rows.prompt_lengths[row]
        assert length <= ROOM
        shown = (rows.origins[row] == Origin.OBSERVATION).any()
        if of_row[-1].query and not of_row[-1].document_ids:
            assert not rows.finished[row]  # it waits for what did not fit
        if shown:
            assert len(of_row) > 1
    assert any(turn.query and not turn.document_ids for t in turns for turn in t)


def answered(talk, rows):
    """(row, replies that it was given), of rows that were given any."""
    counts = [sum(bool(turn.document_ids) for turn in talk.turns(row)) for row in rows]
    return [(row, count) for row, count in zip(rows, counts, strict=True) if count]


def test_a_branch_goes_on_behind_a_reply_and_moves_nothing_else(tiny):
    environment, rows, talk, session = talk_of(tiny, max_calls=3)
    before, said = session.trajectories(rows), list(map(talk.turns, rows))
    parents = [row for row, count in answered(talk, rows) if count > 1]
    assert parents
    new = [talk.branch(row, 1, sample=9) for row in parents]
    talk.run()
    for row, parent in zip(new, parents, strict=True):
        kept, turns = talk.copied(row), talk.turns(row)
        same = before.tokens[parent, :kept]
        np.testing.assert_array_equal(session.texts.tokens[row, :kept], same)
        # It ends with the first reply, and what follows is its own.
        assert session.texts.origins[row, kept - 1] == Origin.OBSERVATION
        assert session.texts.origins[row, kept] == Origin.SAMPLED
        assert turns[0] == said[parent][0] and len(turns) > 1
        assert sum(bool(turn.query) for turn in turns) <= 3
    assert [turns for row in new if (turns := talk.turns(row)) not in said]
    assert environment.histories == [[said[row][0].query] for row in parents]
    assert environment.examples == [EXAMPLES[row] for row in parents]
    helpers.check_log_probs(tiny, session.trajectories(new))
    assert helpers.texts_of(session.trajectories(rows)) == helpers.texts_of(before)
    assert list(map(talk.turns, rows)) == said


@pytest.mark.parametrize("limits", [{}, {"turn_tokens": 5}])
def test_a_branch_with_the_noise_of_its_parent_is_its_parent(tiny, limits):
    _, rows, talk, session = talk_of(tiny, max_calls=3, **limits)
    some = answered(talk, rows)
    new = [
        talk.branch(row, replies, sample=REQUESTS[row].sample)
        for row, count in some
        for replies in range(count + 1)
    ]
    parents = [row for row, count in some for _ in range(count + 1)]
    talk.run()
    assert list(map(talk.turns, new)) == list(map(talk.turns, parents))
    both = session.trajectories(new), session.trajectories(parents)
    assert helpers.texts_of(both[0]) == helpers.texts_of(both[1])
    np.testing.assert_array_equal(both[0].finished, both[1].finished)


@pytest.mark.system
def test_episodes_on_eight_devices(tiny):
    _, rows, talk, session = talk_of(tiny, max_calls=3)
    said = list(map(talk.turns, rows)), helpers.texts_of(session.trajectories(rows))
    mesh = sharding.make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        _, rows, talk, session = talk_of(
            helpers.spread(tiny, mesh), mesh=mesh, max_calls=3
        )
    spread = session.trajectories(rows)
    assert (list(map(talk.turns, rows)), helpers.texts_of(spread)) == said
    helpers.check_log_probs(tiny, spread)
