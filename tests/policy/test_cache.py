import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import cache
from tests import helpers


def layer(rows, slots, axis=cache.VALUE_SLOTS):
    """Values, or keys, that say where they are: 100 row + slot."""
    numbers = 100.0 * np.arange(rows)[:, None] + np.arange(slots)
    values = np.broadcast_to(numbers[:, None, :, None], (rows, 2, slots, 4))
    return jnp.asarray(np.moveaxis(values, 2, axis), jnp.float32)


def numbers(x, axis=cache.VALUE_SLOTS):
    """What `layer` wrote, one number a slot."""
    x = np.moveaxis(np.asarray(x), axis, 2)
    assert (x == x[:, :1, :, :1]).all()
    return x[:, 0, :, 0].tolist()


def test_an_empty_cache_stores_prompts_once():
    kv = cache.empty(helpers.TINY, 3, 4, 5, 6, choices.Dtype.BFLOAT16)
    arch = helpers.TINY
    assert len(kv.keys) == len(kv.shared_values) == arch.num_layers
    assert kv.shared_keys[0].shape == (3, 2, 8, 5)
    assert kv.keys[0].shape == (12, 2, 8, 6)
    assert kv.values[0].shape == (12, 2, 6, 8)
    assert (kv.num_shared_slots, kv.num_slots, kv.rows_per_prompt) == (5, 6, 4)
    # Keys and values of both layers, two heads of eight numbers of two bytes.
    assert kv.nbytes == 2 * 2 * 2 * 8 * 2 * (3 * 5 + 12 * 6)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(kv))


@pytest.mark.parametrize("parts", [1, 2])
def test_pick_counts_rows_within_each_part(parts):
    rows = jnp.array([[3, 0, 2], [1, 1, 0]])[:parts]
    picked = cache.pick(layer(4 * parts, 1), rows)
    expected = [[300], [0], [200], [500], [500], [400]]
    assert numbers(picked) == expected[: 3 * parts]


def test_place_puts_back_what_pick_took_and_drops_the_rest():
    rows = jnp.array([[3, 0], [1, 4]])
    before = layer(8, 2)
    new = 1 + cache.pick(before, rows)
    after = cache.place(before, rows, new)
    expected = numbers(before)
    for row in (3, 0, 5):
        expected[row] = [x + 1 for x in expected[row]]
    assert numbers(after) == expected


def test_place_and_pick_on_lengths():
    lengths = jnp.arange(6)
    rows = jnp.array([[2, 0], [1, 3]])
    assert cache.pick(lengths, rows[:, :1]).tolist() == [2, 4]
    placed = cache.place(lengths, rows, jnp.array([10, 11, 12, 13]))
    assert placed.tolist() == [11, 1, 10, 3, 12, 5]


@pytest.mark.parametrize("axis", [cache.KEY_SLOTS, cache.VALUE_SLOTS])
@pytest.mark.parametrize(("slots", "tail"), [(2, []), (3, []), (5, [0, 0])])
def test_rows_are_cut_or_padded(slots, tail, axis):
    kept = min(slots, 3)
    expected = [[100 * row + s for s in range(kept)] + tail for row in range(4)]
    resized = cache.resize(layer(4, 3, axis), slots, axis)
    assert numbers(resized, axis) == expected


@pytest.mark.parametrize(
    ("axis", "write"),
    [
        (cache.KEY_SLOTS, cache.write_keys),
        (cache.VALUE_SLOTS, cache.write_values),
    ],
)
def test_tokens_are_written_into_their_slots_and_nowhere_else(axis, write):
    before = layer(2, 4, axis)
    new = 900 + jnp.arange(6.0).reshape(2, 3, 1, 1) + jnp.zeros((2, 3, 2, 4))
    # The first row gets two tokens, past the end is dropped; the second gets one.
    slots = jnp.array([[1, 2, 4], [3, 4, 4]])
    after = write(before, new, slots)
    assert numbers(after, axis) == [[0, 900, 901, 3], [100, 101, 102, 903]]
    assert after.dtype == before.dtype
