"""Translates between a Hugging Face config.json and an `Architecture`.

Reads both styles: transformers 4 keeps `rope_theta` and `rope_scaling` at the top,
transformers 5 a dict `rope_parameters`. What this program cannot compute is refused
here, by name, instead of giving another model's numbers.
"""

import json
import pathlib
from typing import Any

import numpy as np

from grpo_jax.policy.presets import FAMILIES, Architecture, RopeScaling

CONFIG = "config.json"

# config.json's name -> ours, where they mean the same.
_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "model_dim",
    "intermediate_size": "feed_forward_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "max_position_embeddings": "max_context_tokens",
    "rms_norm_eps": "norm_epsilon",
    "tie_word_embeddings": "tied_head",
}
# The same for `rope_scaling` and `RopeScaling`.
_SCALING_FIELDS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_tokens",
}
_CLASSES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}


def read_architecture(directory: str | pathlib.Path) -> Architecture:
    """Returns the architecture that a model directory's config.json describes.

    Args:
      directory: a local model directory, or the JSON file itself.

    Raises:
      ValueError: no such file, a field is missing or wrong, or the model is of a kind
        this program does not compute. The message names file, field and value.
    """
    file, config = read_config(directory)
    try:
        return _architecture(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_config(directory: str | pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Returns the path and content of a directory's config.json.

    Raises:
      ValueError: there is none, or it is not a JSON object.
    """
    file = pathlib.Path(directory)
    if file.is_dir():
        file = file / CONFIG
    if not file.is_file():
        raise ValueError(f"{file} does not exist: a model directory has a {CONFIG}")
    try:
        config = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds a {type(config).__name__}, not a JSON object")
    return file, config


def _architecture(config: dict[str, Any]) -> Architecture:
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"model_type is {family!r}: this program computes {', '.join(FAMILIES)}"
        )
    _refuse_unsupported(config, family)
    values = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, **config}
    for name in ("hidden_size", "num_attention_heads"):
        _require(config, name, int)
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = config["num_attention_heads"]
    if values.get("head_dim") is None:
        derived = config["hidden_size"] // config["num_attention_heads"]
        # Qwen3's default does not depend on the width.
        values["head_dim"] = 128 if family == "qwen3" else derived
    kinds = {"rms_norm_eps": float, "tie_word_embeddings": bool}
    ours = {
        field: _require(values, name, kinds.get(name, int))
        for name, field in _FIELDS.items()
    }
    theta, scaling = _read_rope(config)
    return Architecture(
        family=family,
        attention_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        rope_theta=theta,
        rope_scaling=scaling,
        **ours,
    )


def _require(config: dict[str, Any], name: str, kind: type) -> Any:
    value = config.get(name)
    if value is None:
        raise ValueError(f"{name} is missing")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r}: it must be {kind.__name__}")
    return value


def _refuse_unsupported(config: dict[str, Any], family: str) -> None:
    """Raises for every option that changes the computation and that we do not have."""
    classes = config.get("architectures") or [_CLASSES[family]]
    if _CLASSES[family] not in classes:
        raise ValueError(
            f"architectures is {classes!r}: a {family} language model is "
            f"{_CLASSES[family]!r}"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method")
        raise ValueError(
            f"quantization_config says {method!r}: quantised weights cannot be "
            "trained; use the unquantised model"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"hidden_act is {config['hidden_act']!r}: only 'silu' is computed"
        )
    # Qwen2 always has its three biases, whatever a config says.
    if family != "qwen2" and config.get("attention_bias"):
        raise ValueError(
            "attention_bias is true: biases of the output projection are not computed"
        )
    if config.get("mlp_bias"):
        raise ValueError("mlp_bias is true: feed-forward biases are not computed")
    _refuse_sliding_window(config)


def _refuse_sliding_window(config: dict[str, Any]) -> None:
    # `sliding_window` alone means nothing: Qwen2.5 sets it and does not use it.
    if config.get("use_sliding_window"):
        raise ValueError(
            f"use_sliding_window is true (sliding_window "
            f"{config.get('sliding_window')!r}): every layer here attends to the whole "
            "context; set it to false if that is what you want"
        )
    others = set(config.get("layer_types") or ()) - {"full_attention"}
    if others:
        raise ValueError(
            f"layer_types holds {', '.join(map(repr, sorted(others)))}: only "
            "'full_attention' is computed"
        )


def _read_rope(config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Returns the base and the scaling of the rotary frequencies, from either style."""
    scaling = config.get("rope_scaling") or {}
    key = "rope_scaling" if scaling else "rope_parameters"
    rope = {**(config.get("rope_parameters") or {}), **scaling}
    if any(isinstance(value, dict) for value in rope.values()):
        raise ValueError(
            f"{key} differs by layer type ({', '.join(rope)}): unsupported"
        )
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ValueError(
            f"partial_rotary_factor is {partial!r}: only whole heads are rotated"
        )
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(
            f"{key}.rope_type is {kind!r}: only 'default' and 'llama3' are computed"
        )
    kinds = {"original_max_position_embeddings": int}
    try:
        fields = {
            ours: _require(rope, name, kinds.get(name, float))
            for name, ours in _SCALING_FIELDS.items()
        }
    except ValueError as error:
        raise ValueError(f"{key}.{error}") from error
    return theta, RopeScaling(**fields)


def write_config(
    directory: pathlib.Path, base: dict[str, Any], arch: Architecture, dtype: np.dtype
) -> None:
    """Writes the config.json of `updated_config`."""
    text = json.dumps(updated_config(base, arch, dtype), indent=2, ensure_ascii=False)
    (directory / CONFIG).write_text(text + "\n", "utf-8")


def updated_config(
    base: dict[str, Any], arch: Architecture, dtype: np.dtype
) -> dict[str, Any]:
    """Returns a config.json for `arch`, keeping what else `base` says.

    Rotary fields are written at the top, where every reader looks (transformers 5
    accepts them, transformers 4 would silently ignore `rope_parameters`), and also in
    `rope_parameters` where the base has it.

    Raises:
      ValueError: no config.json of this family describes `arch`.
    """
    config = dict(base)
    config |= {"model_type": arch.family, "architectures": [_CLASSES[arch.family]]}
    config |= {name: getattr(arch, ours) for name, ours in _FIELDS.items()}
    config |= {"hidden_act": "silu", "torch_dtype": dtype.name, "dtype": dtype.name}
    scaling = None
    if arch.rope_scaling is not None:
        scaling = {
            name: getattr(arch.rope_scaling, ours)
            for name, ours in _SCALING_FIELDS.items()
        }
        scaling["rope_type"] = "llama3"
    config |= {"rope_theta": arch.rope_theta, "rope_scaling": scaling}
    if "rope_parameters" in base:
        rope = scaling or {"rope_type": "default"}
        config["rope_parameters"] = {**rope, "rope_theta": arch.rope_theta}
    if "layer_types" in base:
        config["layer_types"] = ["full_attention"] * arch.num_layers
    if _architecture(config) != arch:
        raise ValueError(f"a {arch.family} config.json cannot describe {arch}")
    return config
