"""What an accelerator can do: memory, bandwidth and matrix rate by name.

Vendors' figures for dense bfloat16, one chip each; what a program reaches is less.
"""

import dataclasses

import jax

_GIGA, _TERA = 1e9, 1e12


@dataclasses.dataclass(frozen=True)
class Device:
    """One chip.

    Attributes:
      name: as `--device` names it.
      memory_bytes: of the chip's own memory.
      bytes_per_second: of that memory.
      flops_per_second: dense bfloat16 matrix products.
      kinds: what JAX calls it (`device_kind`), in lower case.
    """

    name: str
    memory_bytes: float
    bytes_per_second: float
    flops_per_second: float
    kinds: tuple[str, ...] = ()


def _chip(name: str, memory: int, bandwidth: int, rate: int, *kinds: str) -> Device:
    return Device(name, memory * _GIGA, bandwidth * _GIGA, rate * _TERA, kinds)


# GPUs: NVIDIA's data sheets. TPUs: cloud.google.com/tpu/docs, 16, 95 and 32 GB a chip.
DEVICES = {
    device.name: device
    for device in (
        _chip("T4", 16, 320, 65, "tesla t4", "t4"),
        _chip("L4", 24, 300, 121, "nvidia l4"),
        _chip("A10G", 24, 600, 70, "nvidia a10g"),
        _chip("A40", 48, 696, 150, "nvidia a40"),
        _chip("A100-40", 40, 1555, 312, "a100-sxm4-40gb", "a100-pcie-40gb"),
        _chip("A100-80", 80, 2039, 312, "a100-sxm4-80gb", "nvidia a100 80gb pcie"),
        _chip("H100", 80, 3350, 989, "nvidia h100 80gb hbm3", "nvidia h100 pcie"),
        _chip("H200", 141, 4800, 989, "nvidia h200"),
        _chip("v5e", 16, 819, 197, "tpu v5 lite", "tpu v5e"),
        _chip("v5p", 95, 2765, 459, "tpu v5", "tpu v5p"),
        _chip("v6e", 32, 1640, 918, "tpu v6 lite", "tpu v6e"),
    )
}


def named(name: str) -> Device:
    """Returns a device by its name, in any case.

    Raises:
      ValueError: listing the names.
    """
    for known, device in DEVICES.items():
        if known.lower() == name.lower():
            return device
    raise ValueError(f"device {name!r} is not known: use one of {', '.join(DEVICES)}")


def detect() -> Device | None:
    """Returns what this process runs on; None where its figures are not known."""
    kind = jax.devices()[0].device_kind.lower()
    for device in DEVICES.values():
        if kind in device.kinds or kind.removeprefix("nvidia ") in device.kinds:
            return device
    return None
