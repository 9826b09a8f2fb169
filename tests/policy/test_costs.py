"""Operations and bytes, counted by hand and by XLA."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import cache, costs, presets, transformer
from tests import helpers

ARCH = helpers.TINY
# 2 layers; query and output 32 x 32, key and value 32 x 16; three of 32 x 64.
A_LAYER = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
HEAD = 48 * 32


def counted(arch: presets.Architecture) -> int:
    shapes = transformer.abstract_params(arch)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_weight_of_a_preset_is_counted(name):
    arch = presets.preset(name)
    assert costs.total_params(arch) == counted(arch)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_every_weight_of_a_variant_is_counted(tied, bias, qk_norm):
    arch = dataclasses.replace(
        ARCH, tied_head=tied, attention_bias=bias, qk_norm=qk_norm
    )
    assert costs.total_params(arch) == counted(arch)


def test_weights_that_multiply():
    assert costs.matmul_params(ARCH) == 2 * A_LAYER
    norms = 2 * (2 * 32 + 2 * 8) + 32
    assert costs.total_params(ARCH) == 2 * A_LAYER + HEAD + norms


def test_bytes_of_a_token_in_the_cache():
    assert costs.kv_bytes_per_token(ARCH, 4) == 2 * 2 * 2 * 8 * 4
    kv = jax.eval_shape(lambda: cache.empty(ARCH, 1, 1, 0, 10, choices.Dtype.BFLOAT16))
    size = sum(x.size * x.dtype.itemsize for x in (*kv.keys, *kv.values))
    assert size == 10 * costs.kv_bytes_per_token(ARCH, 2)


def test_operations_of_a_forward_pass_by_hand():
    """Rows of 3 and 5 tokens, of which 2 and 1 are scored."""
    weights = 2 * 2 * A_LAYER * 8
    attended = (1 + 2 + 3) + (1 + 2 + 3 + 4 + 5)
    attention = 2 * (2 * 2 * 32) * attended  # two products over all heads, each layer
    head = 2 * HEAD * 3
    lengths, scored = np.array([3, 5]), np.array([2, 1])
    assert costs.forward_flops(ARCH, lengths, scored) == weights + attention + head
    update = costs.update_flops(ARCH, lengths, scored)
    assert update == 3 * (weights + attention + head)


def test_operations_of_decoding_by_hand():
    """From a prompt of 3 to 5 tokens: positions 3 and 4 are shown to the model."""
    weights = 2 * (2 * A_LAYER + HEAD) * 2
    attention = 2 * (2 * 2 * 32) * (3 + 4)
    assert costs.decode_flops(ARCH, np.array([3]), np.array([5])) == weights + attention


def test_decoding_whole_rows_is_one_forward_pass():
    """Every token but the last is shown once, and scores the next one."""
    lengths = np.array([7, 12])
    ones = np.ones(2, np.int64)
    step_by_step = costs.decode_flops(ARCH, ones, lengths)
    at_once = costs.forward_flops(ARCH, lengths - 1, lengths - 1)
    assert step_by_step == at_once


def test_operations_of_a_forward_pass_by_xla():
    """XLA counts the whole square of scores, norms and softmax: the products rule."""
    arch = dataclasses.replace(
        ARCH, model_dim=256, feed_forward_dim=1024, num_layers=1, vocab_size=2048
    )
    rows, width = 2, 64

    def logits(params, tokens):
        hidden = transformer.forward(
            params, arch, tokens, attention=choices.Attention.XLA
        )
        return transformer.logits(params, hidden)

    lowered = jax.jit(logits).lower(
        transformer.abstract_params(arch),
        jax.ShapeDtypeStruct((rows, width), jnp.int32),
    )
    counted = lowered.compile().cost_analysis()["flops"]
    lengths = np.full(rows, width)
    assert counted == pytest.approx(
        costs.forward_flops(arch, lengths, lengths), rel=0.04
    )
