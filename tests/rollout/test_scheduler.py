import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax.policy import sharding
from grpo_jax.records import Origin
from grpo_jax.rollout.engine import Sampling
from grpo_jax.rollout.scheduler import bucket
from tests import helpers

ARCH = helpers.TINY


@pytest.fixture(scope="module")
def params():
    return helpers.params_of(ARCH)


@pytest.fixture(scope="module")
def view(params):
    return helpers.view_of(ARCH, params)


def complete(scheduler, view, requests, **options):
    defaults = dict(sampling=Sampling(1.0), key=jax.random.key(3), step=7)
    with jax.set_mesh(scheduler.mesh):
        return scheduler.complete(view, requests, **{**defaults, **options})


def texts(trajectories):
    """The real tokens of each row."""
    return [
        row[:length].tolist()
        for row, length in zip(trajectories.tokens, trajectories.lengths, strict=True)
    ]


@pytest.fixture(scope="module")
def requests():
    return helpers.requests_of(24, ARCH.vocab_size)


@pytest.fixture(scope="module")
def expected(view, requests):
    return texts(complete(helpers.scheduler_of(ARCH, wave_rows=24), view, requests))


def test_batch_order_changes_nothing(view, requests, expected):
    order = np.random.default_rng(0).permutation(24)
    shuffled = [requests[i] for i in order]
    got = texts(complete(helpers.scheduler_of(ARCH, wave_rows=24), view, shuffled))
    assert got == [expected[i] for i in order]


@pytest.mark.parametrize("changes", [{"wave_rows": 16}, {"chunk_steps": 3}])
def test_waves_and_chunks_change_nothing(view, requests, expected, changes):
    options = {"wave_rows": 24, **changes}
    got = texts(complete(helpers.scheduler_of(ARCH, **options), view, requests))
    assert got == expected


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_eight_devices_give_what_one_gives(params, requests, expected, shape):
    mesh = sharding.make_mesh(*shape)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, sharding.param_shardings(mesh, params))
        view = helpers.view_of(ARCH, sharded)
    scheduler = helpers.scheduler_of(ARCH, mesh, wave_rows=24)
    assert texts(complete(scheduler, view, requests)) == expected


def test_the_step_the_prompt_and_the_sample_decide_the_noise(view, requests, expected):
    scheduler = helpers.scheduler_of(ARCH, wave_rows=24)
    assert texts(complete(scheduler, view, requests, step=8)) != expected
    same = [dataclasses.replace(requests[0], sample=i) for i in range(4)]
    rows = texts(complete(scheduler, view, same))
    assert len({tuple(row) for row in rows}) > 1
    twice = [requests[0], requests[0]]
    rows = texts(complete(scheduler, view, twice))
    assert rows[0] == rows[1] == expected[0]


def test_a_forced_prefix_is_continued(view):
    requests = helpers.requests_of(8, ARCH.vocab_size, prefix=[40, 41])
    got = complete(helpers.scheduler_of(ARCH), view, requests)
    for row, request in enumerate(requests):
        start = len(request.prompt)
        assert got.tokens[row, start : start + 2].tolist() == [40, 41]
        assert (got.origins[row, :start] == Origin.PROMPT).all()
        assert (got.origins[row, start : start + 2] == Origin.GUIDANCE).all()
        assert (got.origins[row, start + 2 : got.lengths[row]] == Origin.SAMPLED).all()
        assert got.lengths[row] - start <= 20


@pytest.mark.parametrize("length", [0, 13])
def test_impossible_prompts_are_refused(view, length):
    request = dataclasses.replace(
        helpers.requests_of(1, ARCH.vocab_size)[0], prompt=[5] * length
    )
    with pytest.raises(ValueError, match=f"has {length} tokens"):
        complete(helpers.scheduler_of(ARCH), view, [request])


def test_streaming_sees_rows_grow(view, requests):
    seen = []
    complete(
        helpers.scheduler_of(ARCH, wave_rows=24, chunk_steps=4),
        view,
        requests,
        on_chunk=lambda rows: seen.append(int(np.asarray(rows.lengths).sum())),
    )
    assert len(seen) > 1 and seen == sorted(seen)


@pytest.mark.parametrize(
    ("size", "maximum", "expected_size"),
    [(1, 100, 16), (16, 100, 16), (17, 100, 32), (65, 100, 100), (9, 12, 12)],
)
def test_buckets(size, maximum, expected_size):
    assert bucket(size, maximum) == expected_size
