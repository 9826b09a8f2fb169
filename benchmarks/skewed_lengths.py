"""Rollouts of very different lengths: compaction and refill against one padded wave.

    python -m benchmarks.skewed_lengths

Lengths are log-normal with a mean of about 160 tokens, cut at 512. The padded wave is
our own loop told to look up only once, at the end: every row is decoded, and attends,
for 512 steps. `at_once` has places for all 32 rows and halves its grid as rows end;
`refilled` decodes 128 rows in 32 places.
"""

import dataclasses
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import common
from benchmarks.decode import setup_of, view_of
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import complete
from grpo_jax.rollout.texts import Request


def main() -> None:
    """Measures useful tokens a second."""
    args = common.parser(__doc__).parse_args()
    common.device_per_core()
    draw = np.random.default_rng(0)
    lengths = np.exp(draw.normal(4.7, 0.85, 128)).clip(4, 512).astype(int)
    prompts = draw.integers(32, 4096, (128, 64))
    requests = [
        Request(prompt.tolist(), index, 0, max_tokens=int(length))
        for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    with tempfile.TemporaryDirectory() as name:
        directory = common.model_directory(pathlib.Path(name), 0)
        setup = setup_of(directory, max_completion_tokens=512)
        padded = dataclasses.replace(setup, chunk_steps=512)
        with jax.set_mesh(setup.mesh):
            view = view_of(directory, setup)

            def run(which, chosen):
                sampling, key = Sampling(1.0), jax.random.key(0)
                return complete(which, view, chosen, sampling=sampling, key=key)

            def waves():
                return [run(padded, requests[i : i + 32])[0] for i in range(0, 128, 32)]

            first = requests[:32]
            seconds = common.measure(
                args.repeats,
                padded_wave=lambda: run(padded, first)[0],
                at_once=lambda: run(setup, first)[0],
                padded_waves=waves,
                refilled=lambda: run(setup, requests)[0],
            )
            stats = {
                "at_once": run(setup, first)[1],
                "refilled": run(setup, requests)[1],
            }
            same = np.array_equal(run(setup, first)[0].tokens, waves()[0].tokens)
    useful = {"padded_wave": lengths[:32], "at_once": lengths[:32]}
    rates = {
        name: float(useful.get(name, lengths).sum()) / common.median(values)
        for name, values in seconds.items()
    }
    result = {
        "mean_tokens": float(lengths.mean()),
        "longest_tokens": int(lengths.max()),
        "seconds": seconds,
        "useful_tokens_per_second": rates,
        "speedup_at_once": rates["at_once"] / rates["padded_wave"],
        "speedup_refilled": rates["refilled"] / rates["padded_waves"],
        "useful_fraction": {
            name: each.sampled_tokens / each.decode_slots
            for name, each in stats.items()
        },
        "same_tokens": same,
    }
    common.write(args.results, "skewed_lengths", result)


if __name__ == "__main__":
    main()
