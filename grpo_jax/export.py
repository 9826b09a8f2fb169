"""Writes a checkpoint as a Hugging Face model directory.

    python -m grpo_jax.export --workdir=runs/quickstart --output=runs/quickstart/model

Weights (safetensors), config, tokenizer and chat template: what transformers, vLLM and
the others load. Nothing that exists is overwritten.
"""

import jax
from absl import flags

from grpo_jax import doors
from grpo_jax.policy import huggingface
from grpo_jax.trainer import model, policies

_POLICY = doors.define_policy()
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "Of the file.")


def main(_: list[str]) -> None:
    """Restores the weights and writes the directory."""
    config, workdir, checkpoint = _POLICY.values()
    built = model.build_model(config)
    with jax.set_mesh(built.mesh):
        params, step = policies.load_params(built, workdir, checkpoint)
        huggingface.save_pretrained(
            _OUTPUT.value,
            params,
            built.arch,
            dtype=_DTYPE.value,
            tokenizer=built.tokenizer,
            source_directory=built.source,
        )
    print(f"step {step} of {workdir} is in {_OUTPUT.value}")


if __name__ == "__main__":
    doors.run(main)
