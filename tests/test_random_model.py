"""The door that writes random models, as a user runs it."""

import functools
import json

import jax
import numpy as np
import pytest

from grpo_jax.policy import huggingface, presets, safetensors_files, transformer
from tests import helpers

pytestmark = pytest.mark.system


run = functools.partial(helpers.run_door, "random_model")


@pytest.fixture
def tokenizer(tmp_path):
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    (directory / "tokenizer.json").write_text('{"exactly": "these  bytes"}')
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    (directory / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    (directory / "README.md").write_text("not a tokenizer")
    return directory


def test_shrunk_config(tmp_path, tokenizer):
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 300,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "eos_token_id": 7,
    }
    source, out = tmp_path / "Big.json", tmp_path / "out"
    source.write_text(json.dumps(config))
    done = run(
        f"--config_json={source}",
        f"--tokenizer={tokenizer}",
        f"--output={out}",
        "--num_layers=2",
        "--hidden_size=64",
        "--seed=3",
        "--dtype=float32",
    )
    assert done.returncode == 0, done.stderr
    arch = huggingface.read_architecture(out)
    assert (arch.num_layers, arch.model_dim, arch.feed_forward_dim) == (2, 64, 256)
    assert (arch.num_heads, arch.num_kv_heads, arch.head_dim) == (4, 1, 16)
    assert arch.vocab_size == 300 and not arch.tied_head
    params = huggingface.load_params(out, arch)
    shapes = transformer.abstract_params(arch)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, shapes)
    assert 0.019 < np.std(params["head"]["kernel"]) < 0.021
    up = params["layers"]["feed_forward"]["up"]["kernel"]
    assert 0.12 < np.std(up) < 0.13  # 1 / sqrt(64)
    assert np.all(np.asarray(params["final_norm"]["scale"]) == 1)
    assert not np.any(params["layers"]["attention"]["query"]["bias"])
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 7
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (tokenizer / name).read_bytes()
    assert not (out / "README.md").exists()


def test_preset(tmp_path, tokenizer):
    out = tmp_path / "out"
    done = run("--preset=miniature", f"--tokenizer={tokenizer}", f"--output={out}")
    assert done.returncode == 0, done.stderr
    assert huggingface.read_architecture(out) == presets.preset("miniature")
    tensors = safetensors_files.read_header(out / "model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {"BF16"}
