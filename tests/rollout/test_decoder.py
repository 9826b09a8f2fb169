"""What a rollout costs: places, prompts, memory and programs."""

import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import cache
from grpo_jax.records import Origin
from grpo_jax.rollout import decoder, engine
from grpo_jax.rollout.texts import Request, Status
from tests import helpers

pytestmark = pytest.mark.system

PROGRAMS = ("prefill", "catch_up", "decode_chunk", "copy", "grow", "move", "row_keys")


def requests_of(prompts, size, *, prompt_tokens=8, limits=(20,)):
    """Groups of one size; limits go round within each."""
    rng = np.random.default_rng(0)
    return [
        Request(prompt, number, sample, max_tokens=limits[sample % len(limits)])
        for number, prompt in enumerate(
            rng.integers(4, 48, (prompts, prompt_tokens)).tolist()
        )
        for sample in range(size)
    ]


def session_of(model, **changes):
    """A session whose rows end by their limits alone."""
    return helpers.session_of(model, **{"eos_ids": (), "chunk_steps": 4, **changes})


class Watch:
    """Counts what `decode_chunk` is given."""

    def __init__(self, monkeypatch):
        self.live, self.rows = [], []
        plain = engine.decode_chunk

        def watched(view, kv, cursor, *args, **options):
            self.live.append(int(np.asarray(cursor.live).sum()))
            self.rows.append(len(cursor.live))
            return plain(view, kv, cursor, *args, **options)

        monkeypatch.setattr(engine, "decode_chunk", watched)


def test_no_row_is_decoded_past_the_chunk_it_ends_in(tiny, monkeypatch):
    watch, limits = Watch(monkeypatch), (1, 4, 5, 20)
    at = session_of(tiny, max_rows=8)
    rows = at.submit(requests_of(6, 4, limits=limits))
    helpers.run_out(at)
    sampled = at.trajectories(rows).origins == Origin.SAMPLED
    assert at.stats.sampled_tokens == sampled.sum() == 6 * sum(limits)
    chunks = [-(-limit // 4) for limit in limits]
    assert sum(watch.live) == 6 * sum(chunks)
    # While any row waits no place is without one.
    waiting = np.cumsum([0, *watch.live]) < 6 * sum(chunks) - 8 * max(chunks)
    assert all(
        live == 8 for live, wait in zip(watch.live, waiting, strict=False) if wait
    )
    assert at.stats.decode_slots == 4 * sum(watch.rows)
    assert at.stats.decode_steps == 4 * len(watch.rows)
    assert at.stats.refills == 16


def test_the_grid_is_halved_as_soon_as_the_rest_fits(tiny, monkeypatch):
    monkeypatch.setattr(decoder, "_SMALLEST_ROWS", 4)
    watch = Watch(monkeypatch)
    at = session_of(tiny, max_rows=16)
    at.submit(requests_of(4, 4, limits=(4, 8, 8, 20)))
    helpers.run_out(at)
    # Three rows of a line do not fit into half of it; one of four lines does.
    assert list(zip(watch.rows, watch.live, strict=True)) == [
        (16, 16),
        (16, 12),
        (4, 4),
        (4, 4),
        (4, 4),
    ]
    assert at.stats.halvings == 1
    useful = at.stats.sampled_tokens / at.stats.decode_slots
    assert useful == (16 * 4 + 12 * 4 + 4 * 12) / (4 * sum(watch.rows))


def test_the_grid_grows_when_more_rows_come(tiny):
    at = session_of(tiny, max_rows=16)
    rows = at.submit(requests_of(2, 4, limits=(4, 20)))
    at.advance()
    at.advance()
    assert at.stats.decode_slots == 2 * 4 * 8
    more = requests_of(2, 4, prompt_tokens=12)
    rows += at.submit([dataclasses.replace(r, prompt_id=r.prompt_id + 9) for r in more])
    at.advance()
    assert at.stats.decode_slots == 2 * 4 * 8 + 4 * 16
    assert (at.texts.status[rows] != Status.QUEUED).all()
    helpers.run_out(at)
    helpers.check_log_probs(tiny, at.trajectories(rows))


def test_each_prompt_of_a_group_is_shown_once(tiny):
    at = session_of(tiny, max_rows=16)
    requests = requests_of(4, 4)
    at.submit([dataclasses.replace(r, prefix=[5] * r.sample) for r in requests])
    at.advance()
    # A prompt less its last token, then what each prefix adds.
    assert at.stats.prefill_tokens == 4 * (7 + 0 + 1 + 2 + 3)
    assert at.stats.prefill_slots >= at.stats.prefill_tokens
    helpers.run_out(at)
    assert at.stats.prefill_tokens == 4 * (7 + 0 + 1 + 2 + 3)


def test_prompts_of_many_shapes_are_shown_in_parts(tiny, monkeypatch):
    """Where not all fit into one prefill, the longest go first and none is left out."""
    monkeypatch.setattr(decoder, "PREFILL_TOKENS", 24)
    requests = [
        dataclasses.replace(r, prompt=r.prompt[r.prompt_id :], prefix=[5] * r.sample)
        for r in requests_of(4, 4, prompt_tokens=12)
    ]
    at = session_of(tiny, max_rows=16)
    rows = at.submit(requests)
    helpers.run_out(at)
    assert at.stats.prefill_tokens == 11 + 10 + 9 + 8 + 4 * (0 + 1 + 2 + 3)
    helpers.check_log_probs(tiny, at.trajectories(rows))


def test_shared_prompts_take_a_third_of_the_memory(tiny):
    options = dict(max_prompt_tokens=64, max_completion_tokens=16, max_rows=16)
    at = session_of(tiny, **options)
    at.submit(requests_of(2, 8, prompt_tokens=64, limits=(4,)))
    at.advance()
    assert at.stats.prefill_tokens == 2 * 63
    kept = at._decoder._kv
    assert (kept.num_shared_slots, kept.num_slots) == (64, 16)
    replicated = cache.empty(tiny.arch, 16, 1, 64, 16, choices.Dtype.FLOAT32)
    assert kept.nbytes <= replicated.nbytes / 3
    # What a chunk read: the weights and all keys and values, in every step.
    weights = sum(x.nbytes for x in jax.tree.leaves(tiny.view))
    assert at.stats.decode_bytes == 4 * (weights + kept.nbytes)


def test_the_longest_are_begun_first_and_groups_stay_together(tiny):
    at = session_of(tiny, max_rows=8)
    guesses = [3, 9, 5, 20, 7, 6]
    requests = [
        dataclasses.replace(r, expected_tokens=guesses[r.prompt_id] - r.sample % 3)
        for r in requests_of(6, 4)
    ]
    # Submitted sample by sample: groups are not adjacent.
    requests.sort(key=lambda request: request.sample)
    at.submit(requests)
    begun = []
    while at.active:
        waited = at.texts.status == Status.QUEUED
        at.advance()
        placed = np.flatnonzero(waited & (at.texts.status != Status.QUEUED))
        if len(placed):
            begun.append(sorted(requests[row].prompt_id for row in placed))
    assert begun == [[1] * 4 + [3] * 4, [4] * 4 + [5] * 4, [0] * 4 + [2] * 4]


def test_suspended_and_held_rows_keep_their_places(tiny):
    at = session_of(tiny, max_rows=8, hold=True)
    rows = at.submit(requests_of(3, 4, limits=(4,)))
    at.advance()
    assert at.advance() == [] and at.active
    waiting = rows[8:]
    assert (at.texts.status[waiting] == Status.QUEUED).all()
    for row in rows[:4]:
        at.release(row)
    assert at.advance() == waiting and not at.active
    assert helpers.check_log_probs(tiny, at.trajectories(rows)) == 12 * 4


def programs():
    return {name: getattr(engine, name)._cache_size() for name in PROGRAMS}


def workload(model, seed):
    """Refills, halvings, prefixes, clones and splices; lengths depend on the seed."""
    rng = np.random.default_rng(seed)
    at = session_of(model, max_rows=8, eos_ids=(3, 17), max_completion_tokens=24)
    requests = requests_of(6, 4, limits=(24,))
    at.submit(
        [
            dataclasses.replace(r, prompt_id=r.prompt_id + 10 * seed, prefix=[5] * 3)
            for r in requests
        ]
    )
    lengths = []
    while at.active:
        for row in at.advance():
            lengths.append(int(at.texts.lengths[row]))
            if rng.random() < 0.3 and at.texts.lengths[row] < 26:
                at.truncate(row, int(at.texts.lengths[row]) - 1)
                at.append(row, [9] * int(rng.integers(1, 4)))
                at.resume(row)
    return lengths


def test_the_same_work_compiles_nothing_the_second_time(tiny):
    first = workload(tiny, seed=1)
    compiled = programs()
    assert workload(tiny, seed=1) == first
    assert programs() == compiled


def test_other_lengths_compile_nothing_either(tiny):
    """Groups come and go alike: only where their rows end differs."""
    lengths = []
    for seed in range(4):
        at = session_of(tiny, max_rows=8, eos_ids=(3, 17))
        requests = requests_of(2, 4)
        rows = at.submit(
            [dataclasses.replace(r, prompt_id=r.prompt_id + 9 * seed) for r in requests]
        )
        helpers.run_out(at)
        lengths.append(at.texts.lengths[rows].tolist())
        if seed == 0:
            compiled = programs()
    assert programs() == compiled
    assert len(set(map(tuple, lengths))) == 4
