"""The engine on one accelerator at real size, against what that device can do.

    python -m benchmarks.accelerator                          one GPU or TPU
    python -m benchmarks.accelerator --presets=miniature --rows=8 --contexts=64

Random weights of known models in bfloat16: decoding at several batches and contexts as
a fraction of the measured copy bandwidth, prefill and the training step as a fraction
of the measured matrix rate, attention kernels side by side, and transformers' generate
where it is installed beside us. One command, one JSON, written after every point; a
point that does not fit in memory is recorded as such.
"""

import contextlib
import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import common
from benchmarks.scaling import trajectories_of
from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.policy import (
    attention_kernels,
    cache,
    compilation,
    costs,
    devices,
    presets,
    sharding,
    transformer,
)
from grpo_jax.policy.presets import Architecture
from grpo_jax.rollout import engine
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import step as steps
from grpo_jax.trainer.scorer import Scorer

DTYPE = choices.Dtype.BFLOAT16
CHUNK = 32


def limits(repeats: int, megabytes: int) -> dict[str, float]:
    """Returns the bytes a second of a copy and operations a second of a product."""
    side = int((megabytes * 1e6 / 2) ** 0.5) // 256 * 256
    x = jnp.ones((side, side), jnp.bfloat16)
    copy, product = jax.jit(lambda x: x + 1), jax.jit(jnp.matmul)
    seconds = common.measure(
        repeats, copy=lambda: copy(x), product=lambda: product(x, x)
    )
    return {
        "copy_bytes_per_second": 2 * x.nbytes / common.median(seconds["copy"]),
        "matmul_flops_per_second": 2 * side**3 / common.median(seconds["product"]),
    }


def decode(
    arch: Architecture, view: Any, rows: int, context: int, repeats: int
) -> dict[str, Any]:
    """Measures a chunk of steps for rows that have `context` tokens already."""
    kv = cache.empty(arch, rows, 1, 16, context + CHUNK, DTYPE)
    cursor = engine.Cursor(
        pending=jnp.zeros(rows, jnp.int32),
        live=jnp.ones(rows, bool),
        remaining=jnp.full(rows, CHUNK),
        keys=engine.row_keys(
            jax.random.key(0), jnp.int32(0), jnp.arange(rows), jnp.zeros(rows, int)
        ),
        stop_states=jnp.zeros(rows, jnp.int32),
    )
    options = {"arch": arch, "eos_ids": (), "steps": CHUNK}
    lowered = engine.decode_chunk.lower(
        view, kv, cursor, Sampling(1.0), None, **options
    )
    compiled = lowered.compile()
    captured = compiled.as_text().count("command_buffer")
    held = [kv]

    def chunk():
        filled = held[0].replace(lengths=jnp.full(rows, context, jnp.int32))
        held[0], drawn = compiled(view, filled, cursor, Sampling(1.0), None)
        return drawn

    seconds = common.measure(repeats, warmups=2, chunk=chunk)["chunk"]
    weights = sum(x.nbytes for x in jax.tree.leaves(view))
    read = weights + rows * context * costs.kv_bytes_per_token(arch, 2)
    a_step = common.median(seconds) / CHUNK
    return {
        "rows": rows,
        "context": context,
        "seconds": seconds,
        "tokens_per_second": rows / a_step,
        "bytes_per_second": read / a_step,
        "command_buffers": captured,
    }


def prefill(arch: Architecture, view: Any, rows: int, tokens: int, repeats: int):
    """Measures the pass over prompts."""
    run = jax.jit(functools.partial(transformer.prefill, arch=arch))
    shape = jnp.ones((rows, tokens), jnp.int32)
    seconds = common.measure(repeats, prefill=lambda: run(view, tokens=shape))
    lengths = np.full(rows, tokens)
    work = costs.forward_flops(arch, lengths, 0 * lengths)
    return {
        "rows": rows,
        "tokens": tokens,
        "seconds": seconds["prefill"],
        "flops_per_second": work / common.median(seconds["prefill"]),
    }


def train(
    arch: Architecture,
    remat: choices.Remat,
    attention: choices.Attention,
    rows: int,
    tokens: int,
    repeats: int,
) -> dict[str, Any]:
    """Measures one update of one micro-batch."""
    mesh = sharding.make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        optimizer = optax.adamw(1e-6)
        scorer = Scorer(arch, mesh, DTYPE, remat, attention, 1.0, tokens - 64, 1024)
        params = jax.jit(transformer.init, static_argnums=0)(arch, jax.random.key(0))
        state = steps.init_state(params, optimizer, mesh)
        update = steps.Update(
            scorer,
            steps.grpo_loss(c.ObjectiveConfig()),
            optimizer,
            lambda _: 1e-6,
            steps.abstract_state(_abstract(params), optimizer, mesh),
        )
        del params
        prompts = np.ones((rows, 64), np.int32)
        taken = trajectories_of(prompts, rows, tokens - 64, arch.vocab_size)
        credit = np.resize(np.float32([1, -1]), rows)
        batch = batches.make_batch(
            taken, credit.astype(float), credit, c.ObjectiveConfig(), tokens - 64
        )
        micro = sharding.put_rows(batch, mesh)
        held = [state]

        def once():
            held[0], metrics = update(held[0], [micro])
            return metrics

        seconds = common.measure(repeats, warmups=2, update=once)["update"]
    lengths = np.full(rows, tokens)
    work = costs.update_flops(arch, lengths, lengths - 64)
    return {
        "remat": remat.value,
        "attention": attention.value,
        "rows": rows,
        "tokens": tokens,
        "seconds": seconds,
        "flops_per_second": work / common.median(seconds),
    }


def attention(arch: Architecture, tokens: int, repeats: int) -> dict[str, Any]:
    """Measures the kernels that run here, forward and backward."""
    shape = (4, tokens, arch.num_heads, arch.head_dim)
    query = jnp.ones(shape, jnp.bfloat16)
    key = jnp.ones((4, tokens, arch.num_kv_heads, arch.head_dim), jnp.bfloat16)
    seen: dict[str, Any] = {"tokens": tokens}
    for kind in choices.Attention:
        if kind is choices.Attention.AUTO:
            continue

        def total(query, key, value, kind=kind):
            mixed = attention_kernels.causal(query, key, value, kind)
            return mixed.astype(jnp.float32).sum()

        gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))

        def timed(gradient=gradient):
            seconds = common.measure(repeats, pass_=lambda: gradient(query, key, key))
            return {"seconds": seconds["pass_"]}

        seen[kind.value] = attempt(timed)
    return seen


def generate(
    preset: str, arch: Architecture, rows: int, context: int, repeats: int
) -> dict[str, Any]:
    """Measures transformers' generate on the same device, in bfloat16."""
    with tempfile.TemporaryDirectory() as folder:
        words = f"{folder}/words"
        programs = common.HERE / "peers"
        python = sys.executable
        size = f"--vocab_size={arch.vocab_size}"
        commands = [
            [python, f"{programs}/protocol.py", size, f"--output={words}"],
            [
                *(python, "-m", "grpo_jax.random_model", f"--preset={preset}"),
                *(f"--tokenizer={words}", f"--output={folder}/model"),
            ],
            [
                *(python, f"{programs}/transformers_generate.py", "--device=cuda"),
                *(f"--model={folder}/model", "--dtype=bfloat16", f"--batch={rows}"),
                *(f"--prompt_tokens={context}", f"--max_new={CHUNK * 4}"),
                f"--repeats={repeats}",
            ],
        ]
        for command in commands:
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def attempt(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what a function measures, or why it could not."""
    try:
        return function()
    except (ValueError, RuntimeError, subprocess.CalledProcessError) as error:
        return {"failed": str(error).splitlines()[0][:200]}


def main() -> None:
    """Measures every point, keeping what there is after each."""
    flags = common.parser(__doc__)
    flags.add_argument("--presets", default="qwen2.5-1.5b,qwen3-0.6b")
    flags.add_argument("--rows", default="64,256,1024")
    flags.add_argument("--contexts", default="1024,4096")
    flags.add_argument("--train_rows", type=int, default=8)
    flags.add_argument("--train_tokens", type=int, default=2048)
    flags.add_argument("--megabytes", type=int, default=512)
    args = flags.parse_args()
    compilation.use_persistent_cache()
    result: dict[str, Any] = limits(args.repeats, args.megabytes)
    if known := devices.detect():
        result["vendor"] = vars(known)

    def keep(name: str, point: dict[str, Any]) -> None:
        peak = result["matmul_flops_per_second"]
        if "bytes_per_second" in point:
            copy = result["copy_bytes_per_second"]
            point["fraction_of_copy"] = point["bytes_per_second"] / copy
        if "flops_per_second" in point:
            point["fraction_of_matmul"] = point["flops_per_second"] / peak
        result.setdefault(name, []).append(point)
        with contextlib.redirect_stdout(None):
            common.write(args.results, "accelerator", result)
        print(name, {k: v for k, v in point.items() if k != "seconds"}, flush=True)

    repeats = args.repeats
    for preset in args.presets.split(","):
        arch = presets.preset(preset, 4096 if preset == "miniature" else None)
        view = jax.jit(
            lambda key, arch=arch: transformer.rollout_view(
                transformer.init(arch, key), arch, DTYPE
            )
        )(jax.random.key(0))
        for context in map(int, args.contexts.split(",")):
            for rows in map(int, args.rows.split(",")):
                point = attempt(lambda: decode(arch, view, rows, context, repeats))  # noqa: B023
                keep(f"{preset} decode", {"rows": rows, "context": context, **point})
            point = attempt(lambda: prefill(arch, view, 8, context, repeats))  # noqa: B023
            keep(f"{preset} prefill", {"tokens": context, **point})
            keep(f"{preset} attention", attention(arch, context, repeats))
        del view
        sizes = args.train_rows, args.train_tokens, repeats
        for remat in choices.Remat:
            kind = choices.Attention.AUTO
            point = attempt(lambda: train(arch, remat, kind, *sizes))  # noqa: B023
            keep(f"{preset} train", {"remat": remat.value, **point})
        if importlib.util.find_spec("torch"):
            point = attempt(lambda: generate(preset, arch, 64, 1024, repeats))  # noqa: B023
            keep(f"{preset} transformers", point)


def _abstract(params: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params
    )


if __name__ == "__main__":
    main()
