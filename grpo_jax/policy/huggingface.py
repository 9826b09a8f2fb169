"""Reads and writes Hugging Face model directories: config, safetensors, tokenizer.

    directory = resolve("Qwen/Qwen3-0.6B")       # or a local directory
    arch = read_architecture(directory)
    params = load_params(directory, arch, shardings=...)
    save_pretrained(output, params, arch, dtype="bfloat16", source_directory=directory)

Weights move one at a time, straight between the file and their shards: beyond the
model itself, the host holds about one weight of all layers.
"""

import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from grpo_jax.policy import hub, model_config, safetensors_files, tensor_map
from grpo_jax.policy.hub import Savable
from grpo_jax.policy.hub import TokenizerFiles as TokenizerFiles
from grpo_jax.policy.hub import resolve as resolve
from grpo_jax.policy.model_config import read_architecture as read_architecture
from grpo_jax.policy.presets import Architecture
from grpo_jax.policy.safetensors_files import StoredTensor
from grpo_jax.policy.tensor_map import Rule

Params = dict[str, Any]


def load_params(
    directory: str | pathlib.Path,
    arch: Architecture,
    *,
    shardings: Params | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Params:
    """Returns the weights of a model directory, each on its own sharding.

    Every process reads only the slices that its devices hold.

    Args:
      directory: a local directory with safetensors.
      arch: what `read_architecture` said of it.
      shardings: a tree of shardings like the parameters; None is the default device.
      dtype: of the weights; master weights are float32.

    Raises:
      ValueError: weights are absent, pickled, damaged, missing, unexpected, of another
        shape or in a format that cannot be trained. Constants without information
        (rotary frequencies) are ignored; so is the head of a tied model if it equals
        the embedding, and refused if not, since one of the two would be lost.
    """
    directory = pathlib.Path(directory)
    stored = safetensors_files.find(directory)
    _check_stored(directory, stored, arch)
    params: Params = {}
    for rule in tensor_map.rules(arch):
        sharding = None if shardings is None else tensor_map.get(shardings, rule.path)
        weight = _load(rule, stored, arch, sharding, np.dtype(dtype))
        tensor_map.put(params, rule.path, weight)
    return params


def _check_stored(
    directory: pathlib.Path, stored: dict[str, StoredTensor], arch: Architecture
) -> None:
    expected = tensor_map.stored_shapes(arch)
    missing = [name for name in expected if name not in stored]
    if missing:
        raise ValueError(
            f"{directory} lacks {len(missing)} of {len(expected)} tensors of this "
            f"{arch.family} model: {_some(missing)}"
        )
    for name, shape in expected.items():
        tensor = stored[name]
        if tensor.shape != shape:
            raise ValueError(
                f"{tensor.file}: {name} has shape {tensor.shape}; the model's "
                f"{model_config.CONFIG} says {shape}"
            )
        if tensor.dtype not in safetensors_files.DTYPES:
            raise ValueError(
                f"{tensor.file}: {name} is {tensor.dtype}; only "
                f"{', '.join(safetensors_files.DTYPES)} can be read"
            )
    extra = [n for n in stored if n not in expected]
    extra = [n for n in extra if not n.endswith(tensor_map.IGNORED_SUFFIXES)]
    if arch.tied_head and tensor_map.HEAD_NAME in extra:
        _check_same(stored[tensor_map.HEAD_NAME], stored[tensor_map.EMBEDDING_NAME])
        extra.remove(tensor_map.HEAD_NAME)
    if extra:
        raise ValueError(
            f"{directory} holds {len(extra)} tensors that this {arch.family} model "
            f"does not have: {_some(extra)}"
        )


def _check_same(head: StoredTensor, table: StoredTensor) -> None:
    same = (head.shape, head.dtype) == (table.shape, table.dtype)
    if same:
        pairs = zip(head.open(), table.open(), strict=True)
        same = all(np.array_equal(ours, theirs) for ours, theirs in pairs)
    if not same:
        raise ValueError(
            f"{head.file}: {head.name} differs from {table.name}, but "
            f"{model_config.CONFIG} ties them: set tie_word_embeddings to false, or "
            "remove the head"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _load(
    rule: Rule,
    stored: dict[str, StoredTensor],
    arch: Architecture,
    sharding: jax.sharding.Sharding | None,
    dtype: np.dtype,
) -> jax.Array:
    """Returns one weight, reading only the slices that local devices hold."""
    tensors = [stored[name] for name in rule.names(arch)]
    views = [rule.from_stored(tensor.open(), arch) for tensor in tensors]
    shape = rule.shape(arch)
    slices: dict[tuple, np.ndarray] = {}  # devices that hold the same read it once

    def read(index: Any) -> np.ndarray:
        key = tuple(part.indices(size) for part, size in zip(index, shape, strict=True))
        if key not in slices:
            parts = views
            if rule.stacked:
                parts, index = views[index[0]], index[1:]
            first = parts[0][index]
            whole = np.empty((len(parts), *first.shape), dtype)
            for part, view in zip(whole, parts, strict=True):
                part[...] = view[index]
            slices[key] = whole if rule.stacked else whole[0]
        return slices[key]

    if sharding is None:
        return jnp.asarray(read((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, sharding, read)


def save_pretrained(
    directory: str | pathlib.Path,
    params: Params,
    arch: Architecture,
    *,
    dtype: DTypeLike,
    tokenizer: Savable | None = None,
    source_directory: str | pathlib.Path | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> None:
    """Writes a model directory that transformers and others load.

    All of it appears at once, under its name, or nothing does. With more than one
    process all must call it; the first one writes.

    Args:
      directory: where; it must not exist or be empty, unless `overwrite`.
      params: the weights, sharded or not.
      arch: their architecture.
      dtype: of the file: float32 or bfloat16.
      tokenizer: travels with the model; None copies the one of `source_directory`.
      source_directory: the model this one was trained from (or its config.json): what
        its config says beyond the architecture, its generation config and its
        tokenizer are kept.
      max_shard_bytes: size above which the weights are divided into several files.
      overwrite: replace the directory, if it is a model directory.

    Raises:
      ValueError: the weights are not those of `arch`, or the directory is taken.
    """
    target, kind = pathlib.Path(directory), np.dtype(dtype)
    if kind not in (np.float32, jnp.bfloat16):
        raise ValueError(f"dtype is {kind}: use float32 or bfloat16")
    _check_params(params, arch)
    _check_target(target, overwrite)
    _wait_for_all(f"checked {target}")
    writes = jax.process_index() == 0
    staging = target.parent / f".{target.name}.{os.getpid()}"
    slots: dict[str, StoredTensor] = {}
    try:
        if writes:
            staging.mkdir(parents=True)
            _write_texts(staging, arch, kind, tokenizer, source_directory)
            shapes = tensor_map.stored_shapes(arch)
            slots = safetensors_files.create(staging, shapes, kind, max_shard_bytes)
        for rule in tensor_map.rules(arch):
            weight = tensor_map.get(params, rule.path)
            for layer, name in enumerate(rule.names(arch)):
                piece = _fetch(weight, layer if rule.stacked else None, kind)
                if writes:
                    slots[name].write(rule.to_stored(piece, arch))
        if writes:
            _move(staging, target)
    finally:
        if writes:
            shutil.rmtree(staging, ignore_errors=True)
    _wait_for_all(f"saved {target}")


def _wait_for_all(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def _fetch(weight: jax.Array, layer: int | None, dtype: np.dtype) -> np.ndarray:
    """Returns one layer of a weight, whole, on this host."""
    # The slice is a new array: read from `weight`, the host copy would stay with it.
    piece = _slice(weight, layer, dtype=dtype)
    if not piece.is_fully_addressable:
        assert isinstance(weight.sharding, NamedSharding)
        whole = NamedSharding(weight.sharding.mesh, PartitionSpec())
        piece = jax.device_put(piece, whole)
    return np.asarray(piece)


@jax.jit(static_argnames="dtype")
def _slice(weight: jax.Array, layer: jax.Array | None, dtype: np.dtype) -> jax.Array:
    return (weight if layer is None else weight[layer]).astype(dtype)


def _check_params(params: Params, arch: Architecture) -> None:
    expected = {rule.path: rule.shape(arch) for rule in tensor_map.rules(arch)}
    found = {
        p: tuple(tensor_map.get(params, p).shape) for p in tensor_map.paths(params)
    }
    for path in sorted(expected | found):
        if expected.get(path) != found.get(path):
            raise ValueError(
                f"params[{path!r}] has shape {found.get(path)}; the architecture has "
                f"{expected.get(path)}"
            )


def _check_target(target: pathlib.Path, overwrite: bool) -> None:
    if "://" in str(target) or str(target).startswith("gs:/"):
        raise ValueError(
            f"{target} is not local: write to a local directory and copy it"
        )
    if not target.exists() or target.is_dir() and not any(target.iterdir()):
        return
    if not overwrite or not (target / model_config.CONFIG).is_file():
        raise ValueError(
            f"{target} exists and is not "
            + ("a model directory" if overwrite else "empty")
            + ": remove it or choose another"
        )


def _write_texts(
    directory: pathlib.Path,
    arch: Architecture,
    dtype: np.dtype,
    tokenizer: Savable | None,
    source: str | pathlib.Path | None,
) -> None:
    base: dict[str, Any] = {}
    if source is not None:
        file, base = model_config.read_config(source)
        files = (hub.GENERATION_CONFIG,) if tokenizer else hub.TOKENIZER_FILES
        hub.copy_files(file.parent, directory, files)
    model_config.write_config(directory, base, arch, dtype)
    if tokenizer is not None:
        tokenizer.save(str(directory))


def _move(staging: pathlib.Path, target: pathlib.Path) -> None:
    """Gives the finished directory its name, replacing what has it."""
    old = target.parent / f"{staging.name}.old"
    if target.exists():
        os.rename(target, old)
    os.rename(staging, target)
    shutil.rmtree(old, ignore_errors=True)
