"""What an accelerator can do: memory, bandwidth and matrix rate by name.

Vendors' figures, one chip each, dense bfloat16 without sparsity (a T4 has float16 only,
which is what is given); what a program reaches is less.
"""

import dataclasses
import os
import pathlib

import jax

_GIGA, _TERA = 1e9, 1e12


@dataclasses.dataclass(frozen=True)
class Device:
    """One chip.

    Attributes:
      name: as `--device` names it.
      memory_bytes: of the chip's own memory.
      bytes_per_second: of that memory; 0 is not known.
      flops_per_second: dense bfloat16 matrix products; 0 is not known.
      backend: "gpu", "tpu" or "cpu".
      compute_capability: of an NVIDIA GPU, such as 9.0; 0 for everything else.
      kinds: what JAX calls it (`device_kind`), in lower case, without the maker.
    """

    name: str
    memory_bytes: float
    bytes_per_second: float
    flops_per_second: float
    backend: str = "gpu"
    compute_capability: float = 0.0
    kinds: tuple[str, ...] = ()


def _gpu(
    name: str, memory: int, bandwidth: int, rate: int, capability: float, *kinds: str
) -> Device:
    figures = memory * _GIGA, bandwidth * _GIGA, rate * _TERA
    return Device(name, *figures, "gpu", capability, kinds)


def _tpu(name: str, memory: int, bandwidth: int, rate: int, *kinds: str) -> Device:
    figures = memory * _GIGA, bandwidth * _GIGA, rate * _TERA
    return Device(name, *figures, "tpu", kinds=kinds)


# GPUs: NVIDIA's data sheets. TPUs: cloud.google.com/tpu/docs.
DEVICES = {
    device.name: device
    for device in (
        _gpu("T4", 16, 320, 65, 7.5, "tesla t4", "t4"),
        _gpu("L4", 24, 300, 121, 8.9, "l4"),
        _gpu("A10G", 24, 600, 70, 8.6, "a10g"),
        _gpu("A40", 48, 696, 150, 8.6, "a40"),
        _gpu("A100-40", 40, 1555, 312, 8.0, "a100-sxm4-40gb", "a100-pcie-40gb"),
        _gpu("A100-80", 80, 2039, 312, 8.0, "a100-sxm4-80gb"),
        _gpu("A100-80-PCIe", 80, 1935, 312, 8.0, "a100 80gb pcie"),
        _gpu("H100", 80, 3350, 989, 9.0, "h100 80gb hbm3"),
        _gpu("H100-PCIe", 80, 2000, 756, 9.0, "h100 pcie"),
        _gpu("H200", 141, 4800, 989, 9.0, "h200"),
        _tpu("v5e", 16, 819, 197, "tpu v5 lite", "tpu v5e"),
        _tpu("v5p", 95, 2765, 459, "tpu v5", "tpu v5p"),
        _tpu("v6e", 32, 1640, 918, "tpu v6 lite", "tpu v6e"),
    )
}


def parse(text: str) -> tuple[Device, int]:
    """Returns a device and how many of it: "H200" is one, "v5ex8" are eight.

    Raises:
      ValueError: listing the names.
    """
    by_name = {name.lower(): device for name, device in DEVICES.items()}
    name, _, count = text.lower().rpartition("x")
    if not count.isdecimal() or not int(count):
        name, count = text.lower(), "1"
    if name not in by_name:
        raise ValueError(
            f"device {text!r} is not known: use one of {', '.join(DEVICES)}, several "
            "of one as in v5ex8"
        )
    return by_name[name], int(count)


def detect() -> Device | None:
    """Returns what this process runs on; None where its figures are not known."""
    kind = jax.devices()[0].device_kind.lower().removeprefix("nvidia ")
    return next((x for x in DEVICES.values() if kind in x.kinds), None)


def host() -> Device:
    """Returns this machine's processor: the memory that is free; no known speed."""
    pages = os.sysconf("SC_PHYS_PAGES")
    memory = float(os.sysconf("SC_PAGE_SIZE") * pages)
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():  # Linux; what else is running has its part
        lines = (line.split() for line in meminfo.read_text().splitlines())
        available = {name: size for name, size, *_ in lines}.get("MemAvailable:")
        memory = 1024.0 * int(available) if available else memory
    return Device("CPU", memory, 0.0, 0.0, "cpu")
