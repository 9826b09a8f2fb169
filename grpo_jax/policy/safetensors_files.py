"""Safetensors files, read and written one tensor at a time.

A file is an 8-byte little-endian length, that many bytes of JSON (name -> dtype, shape,
byte range), and the numbers. Doing it here, not through the library, costs a page and
gives memory maps of which only the slices asked for are read, files that are written
tensor by tensor, bfloat16 without torch, and a message that says what is wrong.
Source: https://huggingface.co/docs/safetensors/index#format
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Formats that become float32 without loss.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# A header above this is not a header: the library's own limit.
_MAX_HEADER_BYTES = 100_000_000


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
      dtype: as the file spells it: "F32", "BF16", ...
      offset_bytes: of its first number, from the start of the file.
    """

    file: pathlib.Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    def open(self) -> np.ndarray:
        """Returns a read-only map of the numbers; nothing is read until it is used."""
        kind = DTYPES[self.dtype]
        return np.memmap(self.file, kind, "r", self.offset_bytes, self.shape)

    def write(self, array: np.ndarray) -> None:
        """Puts the numbers in their place in a file that `create` laid out."""
        assert array.shape == self.shape and array.dtype == DTYPES[self.dtype]
        # Not through a map: on a full disk that is a killed process, this an OSError.
        with open(self.file, "r+b") as out:
            out.seek(self.offset_bytes)
            out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def find(directory: pathlib.Path) -> dict[str, StoredTensor]:
    """Returns every tensor of a model directory, in one file or in shards.

    Raises:
      ValueError: there are no weights, they are pickled, a shard is missing, or a file
        is damaged.
    """
    if (directory / SINGLE).is_file():
        return read_header(directory / SINGLE)
    if (directory / INDEX).is_file():
        return _read_shards(directory)
    pickled = [p.name for s in ("bin", "pt", "pth") for p in directory.glob(f"*.{s}")]
    if pickled:
        names = ", ".join(sorted(pickled)[:3])
        raise ValueError(
            f"{directory} holds only pickled weights ({names}): "
            "reading a pickle runs code from it, so it is refused. Convert them with "
            f"safetensors.torch.save_model, or fetch a revision with {SINGLE}"
        )
    other = ", ".join(sorted(p.name for p in directory.glob("*.safetensors"))[:3])
    found = f" It holds {other}; an adapter must be merged first." if other else ""
    raise ValueError(
        f"{directory} holds no weights: neither {SINGLE} nor {INDEX}.{found}"
    )


def _read_shards(directory: pathlib.Path) -> dict[str, StoredTensor]:
    index = directory / INDEX
    try:
        placed: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is not a safetensors index: {error!r}") from error
    headers: dict[str, dict[str, StoredTensor]] = {}
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(placed.values())):
        file = directory / shard
        if not file.is_file():
            count = sum(name == shard for name in placed.values())
            raise ValueError(
                f"{file} is missing: {INDEX} places {count} tensors in it; "
                "fetch the model again"
            )
        headers[shard] = read_header(file)
        tensors |= headers[shard]
    for name, shard in placed.items():
        if name not in headers[shard]:
            file = directory / shard
            raise ValueError(f"{file} does not hold {name}, as {INDEX} says")
        tensors[name] = headers[shard][name]
    return tensors


def read_header(file: pathlib.Path) -> dict[str, StoredTensor]:
    """Returns the tensors of one file, after checking that all their bytes are there.

    Raises:
      ValueError: the file is truncated, or is not safetensors at all.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        prefix = stream.read(8)
        if prefix == b"version ":
            raise ValueError(f"{file} is a Git LFS pointer: run `git lfs pull` there")
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > _MAX_HEADER_BYTES or length < 2:
            raise ValueError(f"{file} is not a safetensors file ({size} bytes)")
        if 8 + length > size:
            raise ValueError(_truncated(file, 8 + length, size))
        text = stream.read(length)
    try:
        header = json.loads(text)
        tensors, end = _parse_header(file, header, 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} has a damaged header: {error!r}") from error
    if end > size:
        raise ValueError(_truncated(file, end, size))
    if end < size:
        raise ValueError(f"{file} is damaged: {size - end} bytes after the last tensor")
    return tensors


def _parse_header(
    file: pathlib.Path, header: dict[str, Any], start: int
) -> tuple[dict[str, StoredTensor], int]:
    tensors, end = {}, start
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
        first, last = entry["data_offsets"]
        if (
            dtype in DTYPES
            and last - first != math.prod(shape) * DTYPES[dtype].itemsize
        ):
            raise ValueError(f"{name} {shape} {dtype} takes {last - first} bytes")
        tensors[name] = StoredTensor(file, name, dtype, shape, start + first)
        end = max(end, start + last)
    return tensors, end


def _truncated(file: pathlib.Path, promised: int, size: int) -> str:
    return (
        f"{file} is truncated: its header promises {promised} bytes and it has {size}; "
        "fetch it again"
    )


def create(
    directory: pathlib.Path,
    shapes: dict[str, tuple[int, ...]],
    dtype: np.dtype,
    max_shard_bytes: int,
) -> dict[str, StoredTensor]:
    """Lays out files for tensors that are still to be written, in the given order.

    Returns:
      Where each tensor goes. One file, or shards with their index where the whole is
      larger than `max_shard_bytes`; a tensor is never divided.
    """
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    room = max_shard_bytes
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = shape
        room -= size
    if len(shards) == 1:
        return _create_file(directory / SINGLE, shapes, dtype)
    tensors: dict[str, StoredTensor] = {}
    for number, shard in enumerate(shards, 1):
        file = directory / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors |= _create_file(file, shard, dtype)
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: tensor.file.name for name, tensor in tensors.items()},
    }
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return tensors


def _create_file(
    file: pathlib.Path, shapes: dict[str, tuple[int, ...]], dtype: np.dtype
) -> dict[str, StoredTensor]:
    code = next(code for code, known in DTYPES.items() if known == dtype)
    # transformers refuses a file that does not say which framework's layout it has.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        first, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + end)
    return read_header(file)
