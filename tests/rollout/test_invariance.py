"""A completion depends on seed, step, prompt and sample, and on nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax.policy import sharding
from grpo_jax.rollout import decoder, session, stops
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.texts import Status
from tests import helpers

pytestmark = pytest.mark.system

# Half of the rows end before their limit.
OPTIONS = dict(eos_ids=(3, 17), max_rows=24)
REQUESTS = helpers.requests_of(24, helpers.TINY.vocab_size)


def complete(model, requests, mesh=None, step=7, **changes):
    setup = helpers.setup_of(model.arch, mesh, **{**OPTIONS, **changes})
    with jax.set_mesh(setup.mesh):
        rows, _stats = session.complete(
            setup,
            model.view,
            requests,
            sampling=Sampling(4.0),
            key=jax.random.key(3),
            step=step,
        )
    return helpers.texts_of(rows)


@pytest.fixture(scope="module")
def expected(tiny):
    texts = complete(tiny, REQUESTS)
    lengths = [
        len(text) - len(request.prompt)
        for text, request in zip(texts, REQUESTS, strict=True)
    ]
    assert 4 < sum(length < 20 for length in lengths) < 20
    return texts


@pytest.mark.parametrize("changes", [{"max_rows": 8}, {"chunk_steps": 3}])
def test_places_and_chunks_change_nothing(tiny, expected, changes):
    assert complete(tiny, REQUESTS, **changes) == expected


def test_the_order_of_requests_changes_nothing(tiny, expected):
    order = np.random.default_rng(0).permutation(24)
    shuffled = [REQUESTS[i] for i in order]
    assert complete(tiny, shuffled) == [expected[i] for i in order]


def test_guesses_at_lengths_change_nothing(tiny, expected):
    guesses = np.random.default_rng(0).integers(0, 20, 24).tolist()
    requests = [
        dataclasses.replace(each, expected_tokens=guess)
        for each, guess in zip(REQUESTS, guesses, strict=True)
    ]
    assert complete(tiny, requests, max_rows=8) == expected


def test_halving_the_grid_changes_nothing(tiny, expected, monkeypatch):
    monkeypatch.setattr(decoder, "_SMALLEST_ROWS", 2)
    assert complete(tiny, REQUESTS) == expected


def test_sharing_prompts_changes_nothing(tiny, expected):
    """Every row is submitted on its own, so none shares the prompt of another."""
    at = helpers.session_of(tiny, **OPTIONS)
    rows = [at.submit([request])[0] for request in REQUESTS]
    at.advance()
    assert at.stats.prefill_tokens == sum(len(r.prompt) - 1 for r in REQUESTS[::4])
    helpers.run_out(at)
    assert helpers.texts_of(at.trajectories(rows)) == expected


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_eight_devices_give_what_one_gives(tiny, expected, shape):
    mesh = sharding.make_mesh(*shape)
    # Fewer places than rows: they are refilled, each in its own shard.
    assert complete(helpers.spread(tiny, mesh), REQUESTS, mesh, max_rows=16) == expected


def test_the_step_the_prompt_and_the_sample_decide(tiny, expected):
    assert complete(tiny, REQUESTS, step=8) != expected
    others = [dataclasses.replace(r, prompt_id=r.prompt_id + 100) for r in REQUESTS]
    assert complete(tiny, others) != expected
    same = [dataclasses.replace(r, sample=0) for r in REQUESTS]
    assert complete(tiny, same) == [expected[row // 4 * 4] for row in range(24)]


TABLE = stops.build(helpers.PIECES, ("<b", "ab"))
CONVERSATION = dict(stops=TABLE, chunk_steps=4, max_rows=8)


def converse(at, others):
    """Rows wait one chunk at every stop; others come, go and are cloned meanwhile."""
    rows = at.submit(REQUESTS[:8])
    strangers = at.submit(others)
    chunk, waiting = 0, []
    while at.active or waiting:
        stopped, chunk = at.advance(), chunk + 1
        for row in waiting:
            at.append(row, [20, 21, 22][: row % 3])
            at.resume(row)
        waiting = [row for row in stopped if at.texts.status[row] == Status.SUSPENDED]
        if strangers and chunk < 6:
            parent = strangers[chunk % len(strangers)]
            length = int(at.texts.lengths[parent])
            strangers.append(at.clone(parent, length, prompt_id=77, sample=chunk))
            for row in [row for row in waiting if row in strangers]:
                waiting.remove(row)
                at.truncate(row, int(at.texts.lengths[row]) - 1)
                at.finish(row)
    return helpers.texts_of(at.trajectories(rows))


@pytest.fixture(scope="module")
def conversations(tiny):
    return converse(helpers.session_of(tiny, **CONVERSATION), [])


OTHERS = helpers.requests_of(8, helpers.TINY.vocab_size, seed=1) + REQUESTS[8:10]


def test_what_becomes_of_other_rows_changes_nothing(tiny, conversations):
    at = helpers.session_of(tiny, **CONVERSATION)
    assert converse(at, OTHERS) == conversations
    assert (at.texts.parents >= 0).sum() == 5


def test_splices_and_clones_on_eight_devices(tiny, conversations):
    mesh = sharding.make_mesh(2, 2, 2)
    at = helpers.session_of(helpers.spread(tiny, mesh), mesh=mesh, **CONVERSATION)
    with jax.set_mesh(mesh):
        assert converse(at, OTHERS) == conversations
    helpers.check_log_probs(tiny, at.trajectories(range(len(at.texts))))
