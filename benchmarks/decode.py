"""Decoding against transformers' `generate`: same weights, same prompts, same lengths.

    python -m benchmarks.decode

32 prompts of 64 tokens, 256 new tokens each, none of which ends a completion; greedy,
and sampled at temperature 1. The greedy tokens of both are compared.
"""

import dataclasses
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import common
from grpo_jax import choices
from grpo_jax.policy import huggingface, sharding, transformer
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import complete
from grpo_jax.rollout.setup import Setup
from grpo_jax.rollout.texts import Request


def setup_of(directory: pathlib.Path, **changes) -> Setup:
    """Returns a sampler of a model directory on one device, in float32."""
    defaults = dict(
        arch=huggingface.read_architecture(directory),
        mesh=sharding.make_mesh(0, 1, 1),
        dtype=choices.Dtype.FLOAT32,
        attention=choices.Attention.AUTO,
        eos_ids=(),
        max_prompt_tokens=64,
        max_completion_tokens=256,
        max_rows=32,
        chunk_steps=32,
    )
    return Setup(**{**defaults, **changes})


def view_of(directory: pathlib.Path, setup: Setup):
    """Returns the weights of a model directory, laid out for decoding."""
    shardings = sharding.param_shardings(
        setup.mesh, transformer.abstract_params(setup.arch)
    )
    params = huggingface.load_params(directory, setup.arch, shardings=shardings)
    return transformer.rollout_view(params, setup.arch, setup.dtype)


def main() -> None:
    """Measures both and prints the ratio."""
    args = common.parser(__doc__).parse_args()
    common.device_per_core()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        directory = common.model_directory(folder, 0)
        saved = folder / "greedy.npz"
        theirs = common.peer(
            "torch",
            "transformers_generate.py",
            f"--model={directory}",
            f"--repeats={args.repeats}",
            f"--save={saved}",
        )
        setup = setup_of(directory)
        if saved.exists():
            prompts = np.load(saved)["prompts"]
        else:
            prompts = np.random.default_rng(0).integers(32, 4096, (32, 64))
        requests = [Request(row.tolist(), i, 0) for i, row in enumerate(prompts)]
        with jax.set_mesh(setup.mesh):
            view = view_of(directory, setup)

            def ours(temperature: float):
                sampling, key = Sampling(temperature), jax.random.key(0)
                return complete(setup, view, requests, sampling=sampling, key=key)[0]

            seconds = common.measure(
                args.repeats, greedy=lambda: ours(0.0), sampled=lambda: ours(1.0)
            )
            tokens = ours(0.0).tokens[:, 64:]
        result = {
            "completion_tokens": 32 * 256,
            "ours_seconds": seconds,
            "ours_tokens_per_second": {
                way: 32 * 256 / common.median(values) for way, values in seconds.items()
            },
            "setup": {
                field.name: getattr(setup, field.name)
                for field in dataclasses.fields(setup)
                if isinstance(getattr(setup, field.name), int)
            },
        }
        if theirs:
            result["transformers"] = theirs
            result["speedup"] = {
                way: common.median(theirs["seconds"][way]) / common.median(values)
                for way, values in seconds.items()
            }
            same = tokens == np.load(saved)["greedy"]
            result["equal_greedy_tokens"] = float(same.mean())
        common.write(args.results, "decode", result)


if __name__ == "__main__":
    main()
