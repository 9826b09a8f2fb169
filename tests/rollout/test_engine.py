"""The jitted steps, one at a time, on a grid of two prompts by two rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import choices
from grpo_jax.policy import cache, transformer
from grpo_jax.rollout import engine, stops
from grpo_jax.rollout.sampling import Sampling

PROMPTS = np.array([[5, 9, 11, 7, 30, 31], [20, 21, 22, 23, 24, 25]], np.int32)
# The second prompt is shorter; the last token of each is pending.
LENGTHS = np.array([5, 3], np.int32)
# Rows begin with these behind their prompt; the second and fourth with nothing.
GIVEN = [[40, 41, 42], [], [43], []]


def prefilled(model):
    """A cache that holds both prompts, computed in the other order."""
    kv = cache.empty(model.arch, 2, 2, 8, 16, choices.Dtype.FLOAT32)
    return engine.prefill(
        model.view,
        kv.replace(shared_lengths=jnp.asarray(LENGTHS)),
        jnp.asarray(PROMPTS[::-1]),
        jnp.array([[1, 0, 0]]),
        jnp.array([[0, 1, 2]]),
        arch=model.arch,
        attention=choices.Attention.XLA,
    )


def texts():
    """What each row says, the pending token last."""
    prompts = [PROMPTS[row // 2, : LENGTHS[row // 2] + 1] for row in range(4)]
    return [[*prompt, *given] for prompt, given in zip(prompts, GIVEN, strict=True)]


def caught_up(model):
    """The cache of all that `texts` says but the last tokens."""
    counts = np.array([3, 1, 0], np.int32)
    tokens = np.array([[31, 40, 41], [23, 0, 0], [0, 0, 0]], np.int32)
    kv = engine.catch_up(
        model.view,
        prefilled(model),
        jnp.asarray(tokens),
        jnp.asarray(counts),
        jnp.array([[0, 2, 4]]),
        arch=model.arch,
    )
    return kv.replace(lengths=jnp.array([3, 0, 1, 0]))


def cursor_of(**changes):
    options = dict(
        pending=[text[-1] for text in texts()],
        live=[True] * 4,
        remaining=[9] * 4,
        stop_states=[0] * 4,
    )
    options = {name: jnp.asarray(x) for name, x in {**options, **changes}.items()}
    numbers = jnp.arange(4, dtype=jnp.int32)
    keys = engine.row_keys(jax.random.key(5), jnp.int32(1), numbers, numbers)
    return engine.Cursor(keys=keys, **options)


def decode(model, kv, cursor, temperature=4.0, table=None, eos_ids=(), steps=6):
    return engine.decode_chunk(
        model.view,
        kv,
        cursor,
        Sampling(temperature),
        table,
        arch=model.arch,
        eos_ids=eos_ids,
        steps=steps,
    )


whole_rows = jax.jit(transformer.prefill, static_argnums=1)
whole_logits = jax.jit(
    lambda params, arch, tokens: transformer.logits(
        params, transformer.forward(params, arch, tokens)
    ),
    static_argnums=1,
)


def padded(rows):
    tokens = np.zeros((4, 16), np.int32)
    for row, text in zip(tokens, rows, strict=True):
        row[: len(text)] = text
    return tokens


def check_keys(kv, model, rows):
    """The cache holds the keys of every row's tokens, prompt and own part."""
    fresh, _values = whole_rows(model.view, model.arch, padded(rows))
    for layer, prompt, own in zip(fresh, kv.shared_keys, kv.keys, strict=True):
        for row, text in enumerate(rows):
            shared = min(int(kv.shared_lengths[row // 2]), len(text))
            parts = prompt[row // 2, ..., :shared], own[row, ..., : len(text) - shared]
            keys = np.concatenate([np.asarray(part) for part in parts], -1)
            np.testing.assert_allclose(keys, layer[row, ..., : len(text)], atol=1e-5)


def test_prompts_go_to_their_places(tiny):
    kv = prefilled(tiny)
    check_keys(kv, tiny, [PROMPTS[row // 2, : LENGTHS[row // 2]] for row in range(4)])
    assert not np.asarray(kv.keys[0]).any()
    assert not np.asarray(kv.shared_keys[0])[..., 6:].any()


def test_given_tokens_are_shown_to_the_rows_named(tiny):
    kv = caught_up(tiny)
    check_keys(kv, tiny, [text[:-1] for text in texts()])
    assert not np.asarray(kv.keys[1])[[1, 3]].any()


def test_chunks_continue_all_rows(tiny):
    kv, drawn = decode(tiny, caught_up(tiny), cursor_of())
    assert drawn.counts.tolist() == [6] * 4
    said = [[*text, *new] for text, new in zip(texts(), drawn.tokens, strict=True)]
    check_keys(kv, tiny, [text[:-1] for text in said])
    logits = whole_logits(tiny.params, tiny.arch, padded(said)) / 4.0
    table = np.asarray(jax.nn.log_softmax(logits))
    for row, text in enumerate(said):
        at = np.arange(len(text) - 7, len(text) - 1)
        np.testing.assert_allclose(
            drawn.log_probs[row], table[row, at, text[-6:]], atol=1e-4
        )
    np.testing.assert_array_equal(drawn.log_mass, 0)


def test_one_chunk_is_two_halves(tiny):
    """Noise belongs to positions: where the loop looked up changes nothing."""
    _kv, whole = decode(tiny, caught_up(tiny), cursor_of())
    kv, first = decode(tiny, caught_up(tiny), cursor_of(), steps=3)
    again = cursor_of(pending=first.tokens[:, -1])
    _kv, second = decode(tiny, kv, again, steps=3)
    both = np.concatenate([first.tokens, second.tokens], 1)
    np.testing.assert_array_equal(both, whole.tokens)


def test_rows_that_are_not_live_are_left_alone(tiny):
    before = jax.device_get(caught_up(tiny))
    live = np.array([True, False, True, False])
    kv, drawn = decode(tiny, caught_up(tiny), cursor_of(live=live))
    assert drawn.counts.tolist() == [6, 0, 6, 0]
    for old, new in zip(before.keys, kv.keys, strict=True):
        np.testing.assert_array_equal(old[~live], np.asarray(new)[~live])
    _kv, together = decode(tiny, caught_up(tiny), cursor_of())
    np.testing.assert_array_equal(drawn.tokens[::2], together.tokens[::2])


def test_rows_stop_where_they_have_to(tiny):
    """At what remains, at an end, at a stop: whichever comes first."""
    _kv, free = decode(tiny, caught_up(tiny), cursor_of())
    free = np.asarray(free.tokens)
    # No earlier token of the row is the one it is to stop at.
    assert free[1, 2] not in free[1, :2] and free[2, 3] not in free[2, :3]
    table = stops.build([bytes([token]) for token in range(48)], [chr(free[2, 3])])
    kv, drawn = decode(
        tiny,
        caught_up(tiny),
        cursor_of(remaining=[2, 9, 9, 1]),
        table=table,
        eos_ids=(int(free[1, 2]),),
    )
    counts = np.asarray(drawn.counts)
    ends = [next(iter(np.flatnonzero(row == free[1, 2]) + 1), 9) for row in free]
    hits = [next(iter(np.flatnonzero(row == free[2, 3]) + 1), 9) for row in free]
    expected = np.minimum.reduce([[2, 9, 9, 1], ends, hits, [6] * 4])
    np.testing.assert_array_equal(counts, expected)
    assert counts[1] == 3 and counts[2] == 4
    np.testing.assert_array_equal(drawn.ended, counts == ends)
    np.testing.assert_array_equal(drawn.stops, counts == hits)
    for row in range(4):
        np.testing.assert_array_equal(
            drawn.tokens[row, : counts[row]], free[row, : counts[row]]
        )


def test_the_search_for_stops_goes_on_from_chunk_to_chunk(tiny):
    _kv, free = decode(tiny, caught_up(tiny), cursor_of())
    pair = bytes(np.asarray(free.tokens)[0, 2:4].tolist()).decode()
    table = stops.build([bytes([token]) for token in range(48)], [pair])
    kv, first = decode(tiny, caught_up(tiny), cursor_of(), table=table, steps=3)
    assert first.stops[0] == 0 and first.stop_states[0] == 1
    again = cursor_of(pending=first.tokens[:, -1], stop_states=first.stop_states)
    _kv, second = decode(tiny, kv, again, table=table, steps=3)
    assert second.stops[0] == 1 and second.counts[0] == 1


def test_greedy_takes_the_most_likely_token(model):
    programs = engine.decode_chunk._cache_size()
    decode(model, caught_up(model), cursor_of())
    _kv, drawn = decode(model, caught_up(model), cursor_of(), temperature=0.0)
    assert engine.decode_chunk._cache_size() <= programs + 1
    said = [[*text, *new] for text, new in zip(texts(), drawn.tokens, strict=True)]
    best = whole_logits(model.params, model.arch, padded(said)).argmax(-1)
    for row, text in enumerate(said):
        written = best[row, len(text) - 7 : len(text) - 1]
        np.testing.assert_array_equal(drawn.tokens[row], written)


def test_copies_are_made_at_once(tiny):
    before = jax.device_get(caught_up(tiny))
    sources, targets = jnp.array([[0, 1, 0]]), jnp.array([[1, 3, 4]])
    kv = engine.copy(caught_up(tiny), sources, targets, of_rows=True)
    for name, rows in (("keys", [0, 0, 2, 1]), ("shared_keys", [0, 1])):
        for old, new in zip(getattr(before, name), getattr(kv, name), strict=True):
            np.testing.assert_array_equal(new, old[rows])
    sources, targets = jnp.array([[1, 0]]), jnp.array([[0, 2]])
    kv = engine.copy(caught_up(tiny), sources, targets, of_prompts=True)
    for name, rows in (("values", [0, 1, 2, 3]), ("shared_values", [1, 1])):
        for old, new in zip(getattr(before, name), getattr(kv, name), strict=True):
            np.testing.assert_array_equal(new, old[rows])


def test_layers_are_moved_and_grown(tiny):
    layer = caught_up(tiny).keys[0]
    moved = engine.move(layer, jnp.array([[2, 0]]), 20, cache.KEY_SLOTS)
    np.testing.assert_array_equal(moved[..., :16], np.asarray(layer)[[2, 0]])
    assert moved.shape[3] == 20 and not np.asarray(moved)[..., 16:].any()
    grown = engine.grow(layer, 20, cache.KEY_SLOTS)
    np.testing.assert_array_equal(grown[..., :16], layer)
    assert grown.shape[3] == 20


def test_a_row_is_its_seed_step_prompt_and_sample():
    def data(seed=0, step=1, prompt=2, sample=3):
        pair = jnp.array([prompt, prompt]), jnp.array([sample, sample + 1])
        return engine.row_keys(jax.random.key(seed), jnp.int32(step), *pair)

    key, neighbour = np.asarray(data())
    np.testing.assert_array_equal(data(sample=4)[0], neighbour)
    others = [data(seed=1), data(step=2), data(prompt=3), data(sample=5)]
    distinct = {tuple(np.asarray(each[0]).tolist()) for each in others}
    assert len(distinct | {tuple(key.tolist()), tuple(neighbour.tolist())}) == 6


def test_a_chunk_writes_the_cache_in_place_and_copies_no_weights(tiny):
    """Compiled, not run: sizes at which activations are small beside both."""
    arch = dataclasses.replace(tiny.arch, model_dim=256, feed_forward_dim=1024)
    weights = jax.eval_shape(
        lambda params: transformer.rollout_view(params, arch, choices.Dtype.FLOAT32),
        transformer.abstract_params(arch),
    )
    kv = jax.eval_shape(
        lambda: cache.empty(arch, 2, 2, 2048, 2048, choices.Dtype.FLOAT32)
    )
    options = dict(arch=arch, eos_ids=(3,), steps=8)
    memory = (
        engine.decode_chunk.lower(
            weights, kv, cursor_of(), Sampling(1.0), None, **options
        )
        .compile()
        .memory_analysis()
    )
    layer_bytes = [
        sum(4 * x.size for x in jax.tree.leaves(part))
        for part in (weights["layers"][0], (kv.keys[0], kv.shared_keys[0]))
    ]
    assert memory.alias_size_in_bytes >= 4 * layer_bytes[1]
    assert memory.temp_size_in_bytes < min(layer_bytes)
