import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import cache, transformer
from grpo_jax.records import Origin, PromptBatch
from grpo_jax.rollout import engine
from grpo_jax.rollout.engine import Sampling
from tests import helpers

COLUMNS, SLOTS = 40, 40


def fresh_log_probs(arch, params, tokens, temperature=1.0):
    """Log-prob of every token under one forward pass of the whole row."""
    hidden = transformer.forward(params, arch, jnp.asarray(tokens))
    logits = transformer.logits(params, hidden)[:, :-1] / temperature
    table = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(table, jnp.asarray(tokens)[:, 1:, None], axis=-1)
    return np.pad(np.asarray(chosen[..., 0]), ((0, 0), (1, 0)))


def started(prompts, budgets=30, prefixes=None):
    """Rows that hold prompts and perhaps prefixes."""
    prefixes = prefixes or [[]] * len(prompts)
    texts = [[*p, *q] for p, q in zip(prompts, prefixes, strict=True)]
    tokens = np.zeros((len(texts), max(map(len, texts))), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    B = len(prompts)
    batch = PromptBatch(
        tokens=tokens,
        prompt_lengths=np.array([len(p) for p in prompts], np.int32),
        lengths=np.array([len(t) for t in texts], np.int32),
        prefix_origins=np.full(B, Origin.GUIDANCE, np.uint8),
        budgets=np.full(B, budgets, np.int32),
        prompt_ids=np.arange(B, dtype=np.int32),
        samples=np.zeros(B, np.int32),
    )
    return engine.start(batch, jax.random.key(5), jnp.int32(1), columns=COLUMNS)


def decode(arch, view, kv, rows, steps, sampling=Sampling(1.0), eos=(helpers.EOS,)):  # noqa: B008
    return engine.decode_chunk(
        view, kv, rows, arch=arch, sampling=sampling, eos_ids=eos, steps=steps
    )


@pytest.fixture(params=helpers.VARIANTS)
def model(request):
    arch = helpers.VARIANTS[request.param]
    params = helpers.params_of(arch)
    return arch, params, helpers.view_of(arch, params)


PROMPTS = [[5, 9, 11, 7], [8], [20, 21, 22, 23, 24, 25, 26], [30, 31]]


def test_sampled_log_probs_equal_a_fresh_forward_pass(model):
    arch, params, view = model
    rows = started(PROMPTS)
    kv = cache.empty(arch, 4, SLOTS, choices.Dtype.FLOAT32)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=8)
    kv, rows = decode(arch, view, kv, rows, 12, Sampling(0.7))
    expected = fresh_log_probs(arch, params, rows.tokens, temperature=0.7)
    sampled = np.asarray(rows.origins) == Origin.SAMPLED
    assert sampled.sum() > 20
    np.testing.assert_allclose(
        np.asarray(rows.behavior_log_probs)[sampled], expected[sampled], atol=1e-4
    )


def test_log_probs_survive_prefixes_splices_and_growth(model):
    """Any sequence of extend and decode equals one fresh pass."""
    arch, params, view = model
    rows = started(PROMPTS, prefixes=[[12, 13], [], [14, 15, 16], []])
    kv = cache.empty(arch, 4, 16, choices.Dtype.FLOAT32)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=12)
    kv, rows = decode(arch, view, kv, rows, 5, eos=())
    kv = cache.grow(kv, SLOTS)
    # An observation of a different length for each row, none for the second.
    spliced = jnp.array([[40, 41, 42], [0, 0, 0], [43, 0, 0], [44, 45, 0]], jnp.int32)
    counts = jnp.array([3, 0, 1, 2], jnp.int32)
    origin = jnp.full(spliced.shape, Origin.OBSERVATION, jnp.uint8)
    rows = engine.append(rows, spliced, counts, origin)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=4)
    np.testing.assert_array_equal(kv.lengths, rows.lengths - 1)
    kv, rows = decode(arch, view, kv, rows, 6, eos=())
    expected = fresh_log_probs(arch, params, rows.tokens)
    sampled = np.asarray(rows.origins) == Origin.SAMPLED
    assert sampled.sum() == 4 * 11
    np.testing.assert_allclose(
        np.asarray(rows.behavior_log_probs)[sampled], expected[sampled], atol=1e-4
    )
    assert (np.asarray(rows.origins) == Origin.OBSERVATION).sum() == 6
    assert (np.asarray(rows.origins) == Origin.GUIDANCE).sum() == 5


def test_extend_on_chosen_rows_leaves_the_others_alone(model):
    arch, params, view = model
    rows = started(PROMPTS)
    kv = cache.empty(arch, 4, SLOTS, choices.Dtype.FLOAT32)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=8)
    before = jax.tree.map(np.asarray, kv)
    chosen = jnp.array([2, 0], jnp.int32)
    tokens = jnp.array([[26, 33, 34], [7, 35, 0]], jnp.int32)
    hidden, kv = transformer.extend(
        view, arch, kv, tokens, jnp.array([3, 2], jnp.int32), chosen
    )
    np.testing.assert_array_equal(kv.lengths, before.lengths + np.array([2, 0, 3, 0]))
    for old, new in zip(before.keys, kv.keys, strict=True):
        np.testing.assert_array_equal(old[[1, 3]], np.asarray(new)[[1, 3]])
    row = jnp.array([[*PROMPTS[2], 33, 34]])
    fresh = transformer.forward(params, arch, row)[0, -1]
    np.testing.assert_allclose(hidden[0], fresh, atol=1e-4)


def test_rows_stop_at_the_end_token_and_at_their_limit(model):
    arch, _, view = model
    rows = started(PROMPTS, budgets=6)
    kv = cache.empty(arch, 4, SLOTS, choices.Dtype.FLOAT32)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=8)
    every_even_token = tuple(range(0, arch.vocab_size, 2))
    kv, rows = decode(arch, view, kv, rows, 10, eos=every_even_token)
    tokens, lengths = np.asarray(rows.tokens), np.asarray(rows.lengths)
    for b, prompt in enumerate(PROMPTS):
        completion = tokens[b, len(prompt) : lengths[b]]
        assert 1 <= len(completion) <= 6
        assert all(token % 2 == 1 for token in completion[:-1])
        assert rows.finished[b] == (completion[-1] % 2 == 0)
        assert (np.asarray(rows.origins)[b, lengths[b] :] == Origin.PAD).all()
    assert np.asarray(rows.done).all()


def test_greedy_takes_the_most_likely_token(model):
    arch, params, view = model
    rows = started(PROMPTS)
    kv = cache.empty(arch, 4, SLOTS, choices.Dtype.FLOAT32)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=8)
    kv, rows = decode(arch, view, kv, rows, 5, Sampling(0.0), eos=())
    logits = transformer.logits(params, transformer.forward(params, arch, rows.tokens))
    best = np.asarray(jnp.argmax(logits, -1))
    for b, prompt in enumerate(PROMPTS):
        written = np.asarray(rows.tokens)[b, len(prompt) : len(prompt) + 5]
        np.testing.assert_array_equal(
            written, best[b, len(prompt) - 1 : len(prompt) + 4]
        )


def test_filters_leave_log_probs_full_and_report_the_kept_mass():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]] * 256))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(256))
    tokens, log_probs, log_mass = engine.sample(logits, keys, Sampling(1.0, top_k=2))
    assert set(np.asarray(tokens).tolist()) == {0, 1}
    full = np.log([0.5, 0.3, 0.15, 0.05])[np.asarray(tokens)]
    np.testing.assert_allclose(log_probs, full, rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_mass), 0.8, rtol=1e-5)


def test_sampling_frequencies_follow_the_distribution():
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    logits = jnp.tile(jnp.log(jnp.asarray(probs, jnp.float32))[None], (20_000, 1))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(1), jnp.arange(20_000)
    )
    tokens, _, _ = engine.sample(logits, keys, Sampling(2.0))
    expected = probs**0.5 / (probs**0.5).sum()
    seen = np.bincount(np.asarray(tokens), minlength=4) / 20_000
    # Four standard errors.
    np.testing.assert_array_less(
        np.abs(seen - expected), 4 * np.sqrt(expected * (1 - expected) / 20_000)
    )


def test_a_second_chunk_compiles_nothing(model):
    arch, _, view = model
    rows = started(PROMPTS)
    kv = cache.empty(arch, 4, SLOTS, choices.Dtype.FLOAT32)
    kv = engine.catch_up(view, kv, rows, arch=arch, width=8)
    kv, rows = decode(arch, view, kv, rows, 3)
    compiled = engine.decode_chunk._cache_size()
    decode(arch, view, kv, rows, 3)
    assert engine.decode_chunk._cache_size() == compiled


def test_sampling_is_hashable_and_compares_by_value():
    assert Sampling(1.0) == Sampling(1.0) and hash(Sampling(1.0)) == hash(Sampling(1.0))
    assert dataclasses.replace(Sampling(1.0), top_k=3) != Sampling(1.0)
