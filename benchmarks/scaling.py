"""How time and memory grow with rows, prompt, completion and group size.

    python -m benchmarks.scaling        writes scaling.json and docs/scaling.svg

One axis at a time, from 16 rows in groups of 8, prompts of 64 and completions of 64
tokens. Times are of a rollout and of an update, in float32; memory is what XLA says the
update needs beside the weights, and the cache the rollout made.
"""

import contextlib
import pathlib
import tempfile
import time

import jax
import numpy as np

from benchmarks import common
from benchmarks.grpo_step import config_of
from grpo_jax.records import Origin, Trajectories
from grpo_jax.reporting import plots
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.texts import Request
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.learner import Learner

START = {"rows": 16, "prompt": 64, "completion": 64, "group": 8}
AXES = {
    "rows": (8, 16, 32, 64),
    "prompt": (16, 64, 256, 1024),
    "completion": (16, 64, 256),
    "group": (2, 4, 8, 16),
}


def trajectories_of(
    prompts: np.ndarray, rows: int, completion: int, vocab_size: int
) -> Trajectories:
    """Returns rows of equal lengths, as if they had been sampled."""
    draw = np.random.default_rng(1)
    tokens = np.zeros((rows, prompts.shape[1] + completion), np.int32)
    tokens[:, : prompts.shape[1]] = np.repeat(prompts, rows // len(prompts), axis=0)
    tokens[:, prompts.shape[1] :] = draw.integers(32, vocab_size, (rows, completion))
    origins = np.full(tokens.shape, Origin.SAMPLED, np.uint8)
    origins[:, : prompts.shape[1]] = Origin.PROMPT
    zeros = np.zeros(tokens.shape, np.float32)
    return Trajectories(
        tokens=tokens,
        origins=origins,
        behavior_log_probs=zeros,
        kept_log_mass=zeros,
        prompt_lengths=np.full(rows, prompts.shape[1], np.int32),
        lengths=np.full(rows, tokens.shape[1], np.int32),
        finished=np.ones(rows, bool),
    )


def measure(
    directory: pathlib.Path,
    workdir: pathlib.Path,
    repeats: int,
    *,
    rows: int,
    prompt: int,
    completion: int,
    group: int,
) -> dict[str, float]:
    """Returns medians of the seconds, and the cache's memory, at one point."""
    config = config_of(directory, completion)
    config.rollout.prompts_per_step = rows // group
    config.rollout.group_size = group
    config.rollout.max_prompt_tokens = prompt
    with contextlib.closing(runs.build(config.seal())) as run:
        vocab_size = run.model.arch.vocab_size
        run.model.tokenizer.eos_ids = (vocab_size,)
        with jax.set_mesh(run.model.mesh):
            learner = Learner(run, run.model.initial_params(), workdir)
            view = run.model.rollout_view(learner.state.params)
            draw = np.random.default_rng(0)
            prompts = draw.integers(32, vocab_size, (rows // group, prompt))
            requests = [
                Request(prompts[i // group].tolist(), i // group, i % group)
                for i in range(rows)
            ]
            trained = trajectories_of(prompts, rows, completion, vocab_size)
            credit = np.resize(np.float32([1, -1]), rows)
            seconds: dict[str, list[float]] = {"rollout": [], "update": []}
            cache = 0
            for _ in range(1 + repeats):
                start = time.perf_counter()
                session = Session(
                    run.model.rollout_setup(),
                    view,
                    sampling=Sampling(1.0),
                    key=jax.random.key(0),
                )
                session.submit(requests)
                while session.active:
                    session.advance()
                    cache = max(cache, session.cache_bytes)
                seconds["rollout"].append(time.perf_counter() - start)
                start = time.perf_counter()
                learner.learn(trained, credit.astype(np.float64), credit)
                seconds["update"].append(time.perf_counter() - start)
    medians = {name: common.median(values[1:]) for name, values in seconds.items()}
    return {**medians, "cache_megabytes": cache / 1e6}


def main() -> None:
    """Measures every axis and draws it."""
    flags = common.parser(__doc__)
    flags.add_argument("--figure", type=pathlib.Path)
    args = flags.parse_args()
    points: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        directory = common.model_directory(folder, 0)
        for axis, sizes in AXES.items():
            points[axis] = []
            for size in sizes:
                shape = {**START, axis: size}
                seen = measure(directory, folder, args.repeats, **shape)
                points[axis].append({axis: size, **seen})
                print(axis, size, seen, flush=True)
    common.write(args.results, "scaling", {"start": START, "points": points})
    if args.figure:
        units = (("rollout", "s"), ("update", "s"), ("cache_megabytes", "MB"))
        charts = [
            plots.line_chart(
                f"{measured.removesuffix('_megabytes')} by {axis}",
                [plots.Series(points=[(p[axis], p[measured]) for p in points[axis]])],
                unit=unit,
                x_label=axis,
                smooth=False,
            )
            for measured, unit in units
            for axis in AXES
        ]
        plots.figure(args.figure, charts, columns=len(AXES))


if __name__ == "__main__":
    main()
