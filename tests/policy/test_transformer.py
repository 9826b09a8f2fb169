import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import cache, transformer
from tests import helpers

pytestmark = pytest.mark.system

extend = jax.jit(transformer.extend, static_argnums=1)
prefill = jax.jit(transformer.prefill, static_argnums=1)


@pytest.fixture(params=helpers.VARIANTS)
def model(request):
    arch = helpers.VARIANTS[request.param]
    return arch, helpers.params_of(arch)


def hidden(model, tokens):
    return np.asarray(transformer.forward(model[1], model[0], jnp.asarray(tokens)))


def test_a_token_changes_what_follows_and_nothing_before(model):
    tokens = np.arange(4, 16)[None]
    changed = tokens.copy()
    changed[0, 5] = 40
    before, after = hidden(model, tokens), hidden(model, changed)
    np.testing.assert_array_equal(before[0, :5], after[0, :5])
    assert (np.abs(before[0, 5:] - after[0, 5:]).max(-1) > 1e-4).all()


def test_rows_do_not_see_each_other(model):
    rows = np.random.default_rng(0).integers(4, 48, (3, 10))
    together = hidden(model, rows)
    for row in range(3):
        np.testing.assert_allclose(
            hidden(model, rows[row : row + 1])[0], together[row], atol=1e-5
        )


def test_recomputing_changes_neither_value_nor_gradient(model):
    arch, params = model
    tokens = jnp.asarray(np.random.default_rng(0).integers(4, 48, (2, 10)))

    def loss(params, remat):
        return (transformer.forward(params, arch, tokens, remat=remat) ** 2).mean()

    plain, full = (
        jax.value_and_grad(loss)(params, remat)
        for remat in (choices.Remat.NONE, choices.Remat.FULL)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, full)


def test_one_token_at_a_time_equals_the_whole_row(model):
    arch, params = model
    tokens = jnp.asarray(np.random.default_rng(0).integers(4, 48, (2, 9)), jnp.int32)
    view = helpers.view_of(arch, params)
    kv = cache.empty(arch, 2, 1, 4, 9, choices.Dtype.FLOAT32)
    ones = jnp.ones(2, jnp.int32)
    whole = hidden(model, tokens)
    for t in range(9):
        last, kv = extend(view, arch, kv, tokens[:, t : t + 1], ones)
        np.testing.assert_allclose(last, whole[:, t], atol=1e-4)
    np.testing.assert_array_equal(kv.lengths, [9, 9])


def test_a_shared_prompt_and_unequal_parts_equal_the_whole_row(model):
    """Two prompts by two rows; they get 3, 0, 1 and 2 tokens, then one each."""
    arch, params = model
    tokens = np.random.default_rng(1).integers(4, 48, (4, 10)).astype(np.int32)
    tokens[1::2, :6] = tokens[::2, :6]
    prompts, starts = tokens[::2, :6], np.array([6, 3], np.int32)
    view = helpers.view_of(arch, params)
    keys, values = prefill(view, arch, jnp.asarray(prompts))
    assert keys[0].shape == (2, arch.num_kv_heads, arch.head_dim, 6)
    assert values[0].shape == (2, arch.num_kv_heads, 6, arch.head_dim)
    kv = cache.empty(arch, 2, 2, 6, 8, choices.Dtype.FLOAT32)
    kv = kv.replace(
        shared_keys=keys, shared_values=values, shared_lengths=jnp.asarray(starts)
    )
    whole, at = hidden(model, tokens), np.repeat(starts, 2)
    for counts in (np.array([3, 0, 1, 2]), np.array([1, 1, 1, 1])):
        given = tokens[np.arange(4)[:, None], at[:, None] + np.arange(counts.max())]
        last, kv = extend(view, arch, kv, jnp.asarray(given), jnp.asarray(counts))
        at = at + counts
        np.testing.assert_array_equal(kv.lengths, at - np.repeat(starts, 2))
        for row in np.flatnonzero(counts):
            expected = whole[row, at[row] - 1]
            np.testing.assert_allclose(last[row], expected, atol=1e-4)
        written = np.asarray(kv.keys[1]).any((1, 2))
        own = at - np.repeat(starts, 2)
        np.testing.assert_array_equal(written, np.arange(8) < own[:, None])


def test_the_view_holds_the_same_weights_in_the_asked_dtype(model):
    arch, params = model
    view = transformer.rollout_view(params, arch, choices.Dtype.BFLOAT16)
    assert {leaf.dtype for leaf in jax.tree.leaves(view)} == {jnp.dtype(jnp.bfloat16)}
    kernel = params["layers"]["attention"]["query"]["kernel"][1].astype(jnp.bfloat16)
    np.testing.assert_array_equal(
        np.asarray(view["layers"][1]["attention"]["query"]["kernel"]), kernel
    )


def test_a_tied_head_is_the_embedding():
    tied = helpers.params_of(helpers.VARIANTS["qwen3"])
    assert transformer.head_table(tied) is tied["embedding"]["table"]
    untied = helpers.params_of(helpers.VARIANTS["llama"])
    assert transformer.head_table(untied) is untied["head"]["kernel"]


def test_shapes_are_known_without_computing(model):
    arch, params = model
    abstract = transformer.abstract_params(arch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
