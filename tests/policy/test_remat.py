"""What is recomputed changes memory and time, and never a number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import attention_kernels, transformer
from grpo_jax.policy.attention_kernels import Hardware
from tests import helpers

# Many compilations: not for every commit.
pytestmark = pytest.mark.system

Attention, Remat = choices.Attention, choices.Remat
# Wide enough that activations outweigh weights.
MODERATE = dataclasses.replace(
    helpers.TINY, num_layers=4, model_dim=64, feed_forward_dim=256, num_heads=8
)
IMPLEMENTATIONS = [Attention.XLA, Attention.XLA_CHUNKED]


def gradient_of(arch, remat, attention):
    """(weights, tokens) -> loss and gradients, jitted."""

    def loss(params, tokens):
        hidden = transformer.forward(
            params, arch, tokens, remat=remat, attention=attention
        )
        return (hidden.astype(jnp.float32) ** 2).mean()

    return jax.jit(jax.value_and_grad(loss))


@pytest.fixture(scope="module")
def plain():
    """Loss and gradients of a small model, nothing recomputed."""
    return gradient_of(helpers.TINY, Remat.NONE, Attention.XLA)(*params_and_tokens())


def params_and_tokens():
    tokens = jnp.asarray(np.random.default_rng(0).integers(4, 48, (2, 10)))
    return helpers.params_of(helpers.TINY), tokens


@pytest.mark.parametrize("attention", IMPLEMENTATIONS)
@pytest.mark.parametrize("remat", Remat)
def test_every_policy_gives_the_same_loss_and_gradients(plain, remat, attention):
    got = gradient_of(helpers.TINY, remat, attention)(*params_and_tokens())
    assert float(plain[0]) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), got, plain)


def trace(arch, remat, attention, *, tokens=512, dtype=jnp.float32):
    """The gradient, traced with shapes alone."""
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, dtype),
        transformer.abstract_params(arch),
    )
    rows = jax.ShapeDtypeStruct((4, tokens), jnp.int32)
    return gradient_of(arch, remat, attention).trace(params, rows)


def temporary_bytes(*args, **options):
    """Scratch memory of the gradient."""
    compiled = trace(*args, **options).lower().compile()
    return compiled.memory_analysis().temp_size_in_bytes


# With xla at lengths where its scores are not most of the memory.
@pytest.mark.parametrize(
    ("attention", "tokens"), [(Attention.XLA, 64), (Attention.XLA_CHUNKED, 512)]
)
def test_what_is_recomputed_needs_no_memory(attention, tokens):
    used = {
        remat: temporary_bytes(MODERATE, remat, attention, tokens=tokens)
        for remat in Remat
    }
    middle = used[Remat.DOTS], used[Remat.ATTENTION]
    assert 0 < used[Remat.FULL] <= min(middle)
    assert max(middle) < 0.7 * used[Remat.NONE]


def test_memory_of_a_model_grows_with_the_length():
    """A scan over layers must not compute the masks of all blocks ahead."""
    short, long = (
        temporary_bytes(helpers.TINY, Remat.FULL, Attention.XLA_CHUNKED, tokens=tokens)
        for tokens in (2048, 4096)
    )
    assert 0 < short < long < 2.2 * short


def test_products_that_are_computed_again():
    products = {
        remat: str(trace(helpers.TINY, remat, Attention.XLA_CHUNKED).jaxpr).count(
            "dot_general["
        )
        for remat in Remat
    }
    once = products[Remat.NONE]
    assert once > 20
    assert products[Remat.DOTS] == once
    # The output projection, gate and up; what follows them is needed by nobody.
    assert products[Remat.ATTENTION] == once + 3
    # Also query, key and value, and the two products of attention.
    assert products[Remat.FULL] == once + 3 + 3 + 2


@pytest.mark.parametrize("remat", Remat)
def test_attention_runs_again_only_where_nothing_is_kept(remat, monkeypatch):
    """Counts forward passes of attention in the gradient, for each implementation."""
    cudnn = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    if not hasattr(cudnn, "check_cudnn_version"):
        pytest.skip("this jax asks for the version of cuDNN elsewhere")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91_000)
    passes = 2 if remat is Remat.FULL else 1

    def traced(hardware, attention=Attention.AUTO):
        monkeypatch.setattr(attention_kernels, "this_hardware", lambda: hardware)
        return trace(helpers.TINY, remat, attention, dtype=jnp.bfloat16)

    with jax.numpy_rank_promotion("allow"):
        gpu = traced(Hardware("gpu", 9.0)).lower(lowering_platforms=("cuda",))
        tpu = traced(Hardware("tpu", splash=True)).lower(lowering_platforms=("tpu",))
    assert gpu.as_text().count("custom_call @__cudnn$fmhaSoftmax(") == passes
    assert tpu.as_text().count('kernel_name = "splash_mha_fwd') == passes
    # Loops over layers and over blocks, forward and backward; and the recomputed one.
    chunked = str(traced(Hardware("cpu"), Attention.XLA_CHUNKED).jaxpr)
    assert chunked.count("scan[") == 3 + passes
