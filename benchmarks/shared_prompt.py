"""One copy of a prompt's keys and values for its group, against one for every row.

    python -m benchmarks.shared_prompt

4 prompts of 1024 tokens, 8 completions of 128 tokens each. `replicated` is the same
loop with lines of one row.
"""

import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np

from benchmarks import common
from benchmarks.decode import setup_of, view_of
from grpo_jax.rollout import grid
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.texts import Request

PROMPTS, GROUP, TOKENS, NEW = 4, 8, 1024, 128


def main() -> None:
    """Measures memory and time."""
    args = common.parser(__doc__).parse_args()
    common.device_per_core()
    draw = np.random.default_rng(0)
    prompts = draw.integers(32, 4096, (PROMPTS, TOKENS)).tolist()
    requests = [Request(prompts[i // GROUP], i // GROUP, i % GROUP) for i in range(32)]
    with tempfile.TemporaryDirectory() as name:
        directory = common.model_directory(pathlib.Path(name), 0)
        setup = setup_of(directory, max_prompt_tokens=TOKENS, max_completion_tokens=NEW)
        kept: dict[str, tuple] = {}

        def run(way: str):
            session = Session(
                setup, view, sampling=Sampling(1.0), key=jax.random.key(0)
            )
            shape = (PROMPTS, GROUP) if way == "shared" else (PROMPTS * GROUP, 1)
            with mock.patch.object(grid, "first_shape", lambda *_: shape):
                rows = session.submit(requests)
                largest = 0
                while session.active:
                    session.advance()
                    largest = max(largest, session.cache_bytes)
            kept[way] = session.trajectories(rows), largest
            return kept[way][0]

        with jax.set_mesh(setup.mesh):
            view = view_of(directory, setup)
            seconds = common.measure(
                args.repeats,
                shared=lambda: run("shared"),
                replicated=lambda: run("replicated"),
            )
    (shared, small), (replicated, large) = kept["shared"], kept["replicated"]
    result = {
        "seconds": seconds,
        "speedup": common.median(seconds["replicated"])
        / common.median(seconds["shared"]),
        "cache_bytes": {"shared": small, "replicated": large},
        "memory_fraction": small / large,
        "same_tokens": bool(np.array_equal(shared.tokens, replicated.tokens)),
    }
    common.write(args.results, "shared_prompt", result)


if __name__ == "__main__":
    main()
