"""Sizes of the known models, against the published parameter counts."""

import dataclasses
import json
import math

import jax
import pytest

from grpo_jax.policy import presets, tensor_map, transformer

PARAMETERS = {
    "miniature": 135_968,
    "miniature-agent": 135_968,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "r1-distill-qwen-1.5b": 1_777_088_000,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-8b": 8_190_735_360,
    "llama-3.2-1b": 1_235_814_400,
}


def test_every_preset_is_counted():
    assert set(PARAMETERS) == set(presets.PRESETS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    shapes = transformer.abstract_params(presets.preset(name))
    assert (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        == (PARAMETERS[name])
    )


@pytest.mark.parametrize("name", PARAMETERS)
def test_checkpoint_table_has_the_weights_of_the_transformer(name):
    arch = presets.preset(name)
    tree = transformer.abstract_params(arch)
    shapes = {path: tensor_map.get(tree, path).shape for path in tensor_map.paths(tree)}
    assert {r.path: r.shape(arch) for r in tensor_map.rules(arch)} == shapes


def test_vocabulary_can_be_the_tokenizers():
    assert presets.preset("miniature", 77).vocab_size == 77
    assert presets.preset("qwen3-0.6b").vocab_size == 151_936


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'qwen3-0.5b'; did you mean 'qwen"):
        presets.preset("qwen3-0.5b")
    with pytest.raises(ValueError, match=r"use one of \['miniature'"):
        presets.preset("zzz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "gpt2"}, "family is 'gpt2': use one of"),
        ({"num_layers": 0}, "num_layers is 0: use an integer above 0"),
        ({"num_heads": 3}, "num_kv_heads is 2: it must divide num_heads, which is 3"),
        ({"head_dim": 15}, "head_dim is 15: .* even"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(presets.preset("miniature"), **changes)


def test_resized_takes_heads_and_feed_forward_along():
    arch = presets.resized(presets.preset("qwen3-0.6b"), 256, num_layers=4)
    assert (arch.num_heads, arch.num_kv_heads, arch.feed_forward_dim) == (4, 2, 768)
    assert (arch.head_dim, arch.num_layers, arch.vocab_size) == (128, 4, 151_936)
    # 14 heads and 2 key-value heads become 4 and 1.
    small = presets.resized(presets.preset("qwen2.5-0.5b"), 256)
    assert (small.num_heads, small.num_kv_heads) == (4, 1)
    chosen = presets.resized(arch, num_heads=6)
    assert (chosen.num_heads, chosen.num_kv_heads, chosen.model_dim) == (6, 2, 256)


def test_resized_with_nothing_changes_nothing():
    for arch in presets.PRESETS.values():
        assert presets.resized(arch) == arch


def test_architecture_is_static_data():
    arch = presets.preset("llama-3.2-1b")
    assert hash(arch) == hash(presets.preset("llama-3.2-1b"))
    assert json.dumps(dataclasses.asdict(arch))
