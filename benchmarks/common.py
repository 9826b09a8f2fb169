"""What the benchmarks share: the model, the clock, the machine and the results file."""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax.policy import sharding

HERE = pathlib.Path(__file__).parent
PEERS = HERE / ".peers"
# The model of the comparisons with other libraries: a Qwen3 of 8.4 million weights.
SIZES = {
    "num_layers": 8,
    "hidden_size": 256,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 64,
    "feed_forward_dim": 768,
    "vocab_size": 4096,
}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the flags that every benchmark has."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--repeats", type=int, default=5, help="that are measured")
    flags.add_argument("--results", type=pathlib.Path, default=HERE / "results")
    return flags


def model_directory(folder: pathlib.Path, eos_ids: int) -> pathlib.Path:
    """Writes the model of the comparisons with random weights, once.

    Args:
      folder: where to.
      eos_ids: tokens 1 to this end a completion; 0: only token 1.
    """
    path = folder / f"model_{eos_ids}"
    if (path / "model.safetensors").exists():
        return path
    words, size = folder / "words", SIZES["vocab_size"]
    _run(HERE / "peers" / "protocol.py", f"--vocab_size={size}", f"--output={words}")
    flags = [f"--{name}={size}" for name, size in SIZES.items()]
    flags += ["--preset=qwen3-0.6b", "--dtype=float32", f"--tokenizer={words}"]
    _run("-m", "grpo_jax.random_model", *flags, f"--output={path}")
    ends = {"eos_token_id": list(range(1, max(eos_ids, 1) + 1)), "pad_token_id": 0}
    (path / "generation_config.json").write_text(json.dumps(ends))
    return path


def device_per_core() -> None:
    """Makes every core of a CPU a device of its own, before any array is made.

    XLA runs a small product on one core; two devices with half the rows each use both.
    """
    if jax.config.jax_platforms in (None, "", "cpu"):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def measure(
    repeats: int, warmups: int = 1, **variants: Callable[[], Any]
) -> dict[str, list[float]]:
    """Returns the seconds of each variant, taken in turns so that noise is shared."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmups + repeats):
        for name, function in variants.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if turn >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def matmul_rate(size: int = 2048, repeats: int = 5) -> float:
    """Returns float32 operations a second of one large product on all devices."""
    mesh = sharding.make_mesh(0, 1, 1)
    x = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    rows = jax.device_put(x, sharding.row_sharding(mesh))
    whole = jax.device_put(x, sharding.replicated(mesh))
    product = jax.jit(jnp.matmul)
    seconds = measure(repeats, product=lambda: product(rows, whole))["product"]
    return 2 * size**3 / statistics.median(seconds)


def temporary_bytes(function: Any, *args: Any) -> int:
    """Returns the memory a compiled function needs beside its inputs and outputs."""
    analysis = jax.jit(function).lower(*args).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def median(values: list[float]) -> float:
    """Returns the median."""
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """Returns "median (least to most)"."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def peer(environment: str, program: str, *arguments: Any) -> dict[str, Any] | None:
    """Runs another library's program in its own environment; returns its JSON.

    None where that environment has not been built (`make bench-peers`).
    """
    python = PEERS / environment / "bin" / "python"
    if not python.exists():
        print(f"{python} is missing: `make bench-peers` builds it", file=sys.stderr)
        return None
    command = [str(python), str(HERE / "peers" / program), *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write(path: pathlib.Path, name: str, result: Mapping[str, Any]) -> None:
    """Writes a benchmark's result with the machine it was taken on, and prints it."""
    record = {"name": name, "machine": machine(), "command": sys.argv, **result}
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1)
    (path / f"{name}.json").write_text(text + "\n")
    print(text)


def machine() -> dict[str, Any]:
    """Returns what the numbers were taken on."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(names),
        "devices": [device.device_kind for device in jax.devices()],
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _run(*arguments: Any) -> None:
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=HERE.parent)
