"""Writes a model directory with random weights, for dry runs and measurements.

python -m grpo_jax.random_model --preset=qwen3-0.6b --num_layers=4 --hidden_size=256 \
    --tokenizer=DIR --output=DIR

A smaller --hidden_size takes along the number of heads and the feed-forward width, in
proportion; the size of a head and the vocabulary stay.
"""

import jax
from absl import app, flags

from grpo_jax import doors
from grpo_jax.policy import huggingface, presets, transformer

_CONFIG = flags.DEFINE_string("config_json", None, "config.json to take sizes from")
_PRESET = flags.DEFINE_string("preset", None, "or the name of a known model")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "its directory", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "directory to write", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "of the weights")
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "of the file")
_HIDDEN = flags.DEFINE_integer("hidden_size", 0, "model width; 0 is the config's")
flags.mark_flags_as_mutual_exclusive(["config_json", "preset"], required=True)
_SIZES = {
    name: flags.DEFINE_integer(name, 0, "0 follows the width, or is the config's")
    for name in ("num_layers", "head_dim", "vocab_size", *presets.FOLLOW_WIDTH)
}


def main(argv: list[str]) -> None:
    """Builds the sizes, draws the weights and writes the directory."""
    if argv[1:]:
        raise app.UsageError(f"unexpected arguments {argv[1:]}: use --flag=value")
    source, sizes = _CONFIG.value, {name: flag.value for name, flag in _SIZES.items()}
    known = huggingface.read_architecture(source) if source else None
    arch = known or presets.preset(_PRESET.value or "")
    arch = presets.resized(arch, _HIDDEN.value, **sizes)
    params = transformer.init(arch, jax.random.key(_SEED.value))
    files = huggingface.TokenizerFiles(_TOKENIZER.value)
    huggingface.save_pretrained(
        _OUTPUT.value,
        params,
        arch,
        dtype=_DTYPE.value,
        tokenizer=files,
        source_directory=source,
    )


if __name__ == "__main__":
    doors.run(main)
