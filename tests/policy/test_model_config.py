"""config.json to Architecture and back, in both of transformers' styles."""

import json
import pathlib

import numpy as np
import pytest

from grpo_jax.policy import huggingface, model_config, presets

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
FAMILIES = ("qwen2", "qwen3", "llama3")


def read(family):
    return json.loads((FIXTURES / f"tiny_{family}" / "config.json").read_text())


def in_style_5(config):
    """Rewrites what transformers 4.57 wrote as transformers 5 would."""
    config = dict(config)
    rope = config.pop("rope_scaling") or {"rope_type": "default"}
    config["rope_parameters"] = {**rope, "rope_theta": config.pop("rope_theta")}
    return config


def write(directory, config):
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize("family", FAMILIES)
def test_both_styles_are_the_same_architecture(tmp_path, family):
    old = huggingface.read_architecture(FIXTURES / f"tiny_{family}")
    assert (
        huggingface.read_architecture(write(tmp_path, in_style_5(read(family)))) == old
    )


def test_fields_of_the_llama_fixture():
    arch = huggingface.read_architecture(FIXTURES / "tiny_llama3")
    assert arch == presets.Architecture(
        family="llama",
        vocab_size=160,
        num_layers=3,
        model_dim=48,
        feed_forward_dim=112,
        num_heads=6,
        num_kv_heads=2,
        head_dim=8,
        max_context_tokens=512,
        rope_theta=500_000.0,
        rope_scaling=presets.RopeScaling(32.0, 1.0, 4.0, 64),
    )


def test_absent_fields_take_the_familys_defaults(tmp_path):
    config = read("qwen2")
    for name in ("tie_word_embeddings", "rope_theta", "rms_norm_eps", "hidden_act"):
        del config[name]
    del config["num_key_value_heads"]
    arch = huggingface.read_architecture(write(tmp_path, config))
    assert not arch.tied_head and arch.num_kv_heads == 6 and arch.head_dim == 8
    assert (arch.rope_theta, arch.norm_epsilon) == (10_000.0, 1e-6)
    config = read("qwen3") | {"head_dim": None}
    assert huggingface.read_architecture(write(tmp_path, config)).head_dim == 128


def test_sliding_window_that_is_not_used_is_fine(tmp_path):
    config = read("qwen2") | {"sliding_window": 4096}
    huggingface.read_architecture(write(tmp_path, config))


WRONG = [
    ({"model_type": "mixtral"}, "model_type is 'mixtral': this program computes qwen2"),
    ({"architectures": ["Qwen3Reward"]}, r"architectures is \['Qwen3Reward'\]"),
    (
        {"quantization_config": {"quant_method": "awq"}},
        "quantization_config says 'awq'",
    ),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu': only 'silu'"),
    ({"attention_bias": True}, "attention_bias is true"),
    ({"mlp_bias": True}, "mlp_bias is true"),
    ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window is true"),
    ({"layer_types": ["sliding_attention"]}, "layer_types holds 'sliding_attention'"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling.rope_type is 'yarn'"),
    ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_type is 'linear'"),
    ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_parameters.rope_type is 'dy"),
    ({"rope_scaling": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
    ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.factor is missing"),
    ({"rope_parameters": {"full_attention": {}}}, "rope_parameters differs by layer"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ({"vocab_size": None}, "vocab_size is missing"),
    ({"hidden_size": "48"}, "hidden_size is '48': it must be int"),
    ({"num_key_value_heads": 4}, "num_kv_heads is 4: it must divide num_heads"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_not_computed_is_refused_by_name(tmp_path, changes, message):
    write(tmp_path, read("qwen3") | changes)
    with pytest.raises(ValueError, match=message) as error:
        huggingface.read_architecture(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[1]", "holds a list, not a JSON obj")]
)
def test_malformed_config(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        huggingface.read_architecture(tmp_path)


def test_absent_config(tmp_path):
    with pytest.raises(ValueError, match=r"config.json does not exist"):
        huggingface.read_architecture(tmp_path)


@pytest.mark.parametrize("style_5", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_written_config_keeps_what_the_source_said(tmp_path, family, style_5):
    source = in_style_5(read(family)) if style_5 else read(family)
    arch = huggingface.read_architecture(write(tmp_path, source))
    new = model_config.updated_config(source, arch, np.dtype("float32"))
    assert {name: new[name] for name in source} == source
    # Top-level rotary fields are what transformers 4 reads.
    assert new["rope_theta"] == arch.rope_theta


@pytest.mark.parametrize("name", presets.PRESETS)
def test_preset_to_config_and_back(tmp_path, name):
    arch = presets.preset(name)
    model_config.write_config(tmp_path, {}, arch, np.dtype("float32"))
    assert huggingface.read_architecture(tmp_path) == arch


@pytest.mark.parametrize("name", presets.PRESETS)
def test_transformers_reads_what_was_written(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    arch = presets.preset(name)
    model_config.write_config(tmp_path, {}, arch, np.dtype("float32"))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert config.model_type == arch.family
    assert config.hidden_size == arch.model_dim and config.head_dim == arch.head_dim
    rope = getattr(config, "rope_parameters", None) or {
        "rope_theta": config.rope_theta,
        **(config.rope_scaling or {}),
    }
    assert rope["rope_theta"] == arch.rope_theta
    scaled = rope.get("rope_type", "default") == "llama3"
    assert scaled == (arch.rope_scaling is not None)


def test_a_mixture_of_families_cannot_be_written():
    arch = presets.Architecture(
        family="llama",
        qk_norm=True,
        vocab_size=9,
        num_layers=1,
        model_dim=8,
        feed_forward_dim=8,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        max_context_tokens=16,
    )
    with pytest.raises(ValueError, match=r"a llama config.json cannot describe"):
        model_config.updated_config({}, arch, np.dtype("float32"))
