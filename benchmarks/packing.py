"""Rows sorted into buckets of few widths, against rows packed end to end.

    python -m benchmarks.packing

256 rows of a prompt of 64 tokens and a completion of log-normal length, mean about 160
and at most 512: one update's gradients, in micro-batches of 2048 slots. `packed` joins
rows, longest first, into rows of full width wherever they fit. No mask keeps the joined
rows apart, which is in favour of packing: a mask would only add work.
"""

import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import common
from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig, OptimizerConfig
from grpo_jax.policy import huggingface, sharding, transformer
from grpo_jax.records import Origin, TrainBatch
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import step as steps
from grpo_jax.trainer.optimizer import make_optimizer, make_schedule
from grpo_jax.trainer.scorer import Scorer

ROWS, PROMPT, LONGEST, BUDGET = 256, 64, 512, 2048
WIDEST = PROMPT + LONGEST


def batch_of(lengths: np.ndarray) -> TrainBatch:
    """Returns rows of these lengths, all but the prompts of which are trained."""
    draw = np.random.default_rng(0)
    columns = np.arange(WIDEST)[None]
    inside = columns < lengths[:, None]
    origins = np.where(columns < PROMPT, Origin.PROMPT, Origin.SAMPLED) * inside
    values = np.zeros(inside.shape, np.float32)
    return TrainBatch(
        tokens=draw.integers(32, 4096, inside.shape).astype(np.int32) * inside,
        origins=origins.astype(np.uint8),
        prompt_lengths=np.full(len(lengths), PROMPT, np.int32),
        advantages=draw.normal(size=len(lengths)).astype(np.float32),
        loss_weights=(origins == Origin.SAMPLED) / inside.sum(dtype=np.float32),
        behavior_log_probs=values,
    )


def packed(lengths: np.ndarray) -> np.ndarray:
    """Returns the lengths of rows joined first-fit, longest first."""
    bins: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        for index, filled in enumerate(bins):
            if filled + length <= WIDEST:
                bins[index] += length
                break
        else:
            bins.append(length)
    return np.array(bins)


def main() -> None:
    """Measures both."""
    args = common.parser(__doc__).parse_args()
    draw = np.random.default_rng(0)
    lengths = np.exp(draw.normal(4.7, 0.85, ROWS)).clip(4, LONGEST).astype(int) + PROMPT
    with tempfile.TemporaryDirectory() as name:
        directory = common.model_directory(pathlib.Path(name), 0)
        arch = huggingface.read_architecture(directory)
    mesh = sharding.make_mesh(0, 1, 1)
    optimizer_config = OptimizerConfig()
    schedule = make_schedule(optimizer_config, 1)
    optimizer = make_optimizer(optimizer_config, schedule)
    scorer = Scorer(
        arch=arch,
        mesh=mesh,
        dtype=choices.Dtype.FLOAT32,
        remat=choices.Remat.DOTS,
        attention=choices.Attention.AUTO,
        temperature=1.0,
        completion_columns=WIDEST,
        chunk_tokens=1024,
    )
    with jax.set_mesh(mesh):
        shardings = sharding.param_shardings(mesh, transformer.abstract_params(arch))
        params = jax.jit(
            lambda key: transformer.init(arch, key), out_shardings=shardings
        )(jax.random.key(0))
        abstract = steps.abstract_state(
            jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
                params,
            ),
            optimizer,
            mesh,
        )
        loss = steps.grpo_loss(ObjectiveConfig())
        update = steps.Update(scorer, loss, optimizer, schedule, abstract)

        def cut(lengths: np.ndarray) -> list[TrainBatch]:
            micros = batches.micro_batches(
                batch_of(lengths),
                widest=WIDEST,
                budget_tokens=BUDGET,
                row_shards=scorer.row_shards,
            )
            return [sharding.put_rows(micro, mesh) for micro in micros]

        def gradients(micros: list[TrainBatch]):
            carry = update.start(micros[0])
            for micro in micros:
                carry = update.accumulate(params, carry, micro)
            return carry

        kinds = {"buckets": cut(lengths), "packed": cut(packed(lengths))}
        seconds = common.measure(
            args.repeats,
            buckets=lambda: gradients(kinds["buckets"]),
            packed=lambda: gradients(kinds["packed"]),
        )
    result = {
        "tokens": int(lengths.sum()),
        "seconds": seconds,
        "padding_fraction": {
            name: batches.padding_fraction(jax.device_get(micros))
            for name, micros in kinds.items()
        },
        "speedup_of_packing": common.median(seconds["buckets"])
        / common.median(seconds["packed"]),
    }
    common.write(args.results, "packing", result)


if __name__ == "__main__":
    main()
