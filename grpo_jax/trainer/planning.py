"""Whether a run fits its devices, and the smallest change that would make it fit."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.policy import attention_kernels, devices, sharding
from grpo_jax.policy.attention_kernels import Hardware
from grpo_jax.policy.devices import Device
from grpo_jax.policy.presets import Architecture
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import memory
from grpo_jax.trainer.memory import Footprint, Moments

# Of what may be used, the share that is taken where the plan itself chooses.
HEADROOM = 0.9
# Of a GPU's memory, what JAX takes unless this says otherwise.
GPU_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_USUAL_GPU_FRACTION, _MOST_GPU_FRACTION = 0.75, 0.9
# How far the search goes: for more rows, more devices and shorter completions.
_MOST_ROWS, _MOST_DEVICES, _FEWEST_COMPLETION_TOKENS = 1 << 14, 512, 64


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run on its devices.

    Attributes:
      footprint: counts its memory.
      device: one of the mesh.
      limit_bytes: what may be used of its memory.
      rows: decoded at once on all devices; as configured, or chosen.
      micro_batch_tokens: of all devices; as configured, or chosen.
    """

    footprint: Footprint
    device: Device
    limit_bytes: float
    rows: int
    micro_batch_tokens: int

    @property
    def moments(self) -> Moments:
        """What the moments of the run hold."""
        rollout = self.footprint.rollout(self.rows)
        return rollout | self.footprint.update(self.micro_batch_tokens)

    @property
    def fits(self) -> bool:
        """Whether the run can be."""
        return memory.total(self.moments) <= self.limit_bytes

    @property
    def largest_rows(self) -> int:
        """Rows that could be decoded at once on all devices; 0 is none."""
        return self._largest(self.footprint.rollout, _MOST_ROWS)

    @property
    def largest_micro_batch_tokens(self) -> int:
        """Slots that a micro-batch could have, up to a whole update; 0 is none."""
        most = self.footprint.update_tokens // self.footprint.shards
        return self._largest(self.footprint.update, most)

    def _largest(self, moments: Callable[[int], Moments], most: int) -> int:
        """Returns the largest size that fits, up to `most` for each shard."""
        shards, low, high = self.footprint.shards, 0, most + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = memory.total(moments(middle * shards)) <= self.limit_bytes
            low, high = (middle, high) if fits else (low, middle)
        return low * shards


def make_plan(footprint: Footprint, device: Device, limit_bytes: float) -> Plan:
    """Returns the plan of a run.

    What the configuration leaves open is chosen: all rows of a step at once and the
    usual micro-batch of the device, or a half, a quarter and so on of these, so that a
    little more or less memory changes nothing.

    Args:
      footprint: counts its memory.
      device: one of the mesh.
      limit_bytes: what may be used of its memory.
    """
    config, shards = footprint.config, footprint.shards

    def halved(moments: Callable[[int], Moments], usual: int) -> int:
        size = usual
        while size > shards and memory.total(moments(size)) > HEADROOM * limit_bytes:
            size = -(-size // (2 * shards)) * shards
        # Where no size fits, it is something else that is too large.
        return size if memory.total(moments(size)) <= limit_bytes else usual

    tokens = shards * batches.default_micro_batch_tokens(device.backend)
    return Plan(
        footprint=footprint,
        device=device,
        limit_bytes=limit_bytes,
        rows=config.rollout.max_rows or halved(footprint.rollout, footprint.step_rows),
        micro_batch_tokens=config.trainer.micro_batch_tokens
        or halved(footprint.update, tokens),
    )


def plan_on(
    config: TrainConfig,
    arch: Architecture,
    mesh: sharding.AnyMesh,
    device: Device | None = None,
) -> Plan:
    """Returns the plan of a run on devices of a kind.

    Args:
      config: of the run.
      arch: the shape of its model.
      mesh: of the devices.
      device: one of them, which need not be here; None is what this process has.
    """
    if device is None:
        device, limit = this_device()
        hardware = attention_kernels.this_hardware()
    else:
        limit, splash = usable_bytes(device), device.backend == "tpu"
        hardware = Hardware(device.backend, device.compute_capability, splash)
    return make_plan(Footprint(config, arch, mesh, hardware), device, limit)


def this_device() -> tuple[Device, float]:
    """Returns the device of this process, and what it may use of its memory."""
    first, hardware = jax.local_devices()[0], attention_kernels.this_hardware()
    if hardware.backend == "cpu":
        device = devices.host()
        # They are one processor under several names.
        limit = device.memory_bytes / jax.local_device_count()
    else:
        limit = float((first.memory_stats() or {}).get("bytes_limit", 0))
        known = hardware.backend, hardware.compute_capability
        device = devices.detect() or Device(first.device_kind, limit, 0.0, 0.0, *known)
        # What is not known is not a limit.
        limit = limit or usable_bytes(device) or math.inf
    return device, limit


def usable_bytes(device: Device) -> float:
    """Returns what a program may use of the memory of a device that is not here."""
    if device.backend != "gpu":
        return device.memory_bytes
    return device.memory_bytes * float(
        os.environ.get(GPU_FRACTION, _USUAL_GPU_FRACTION)
    )


def check(plan: Plan) -> None:
    """Refuses a run that does not fit, unless it was told not to.

    Raises:
      ValueError: it does not fit; the message says what would.
    """
    if plan.footprint.config.trainer.memory_check and not plan.fits:
        raise ValueError(
            f"{refusal(plan)}. This is an estimate: "
            "config.trainer.memory_check=false runs it all the same"
        )


def refusal(plan: Plan) -> str:
    """Returns why a run does not fit, and the smallest change that would help."""
    sizes = {name: sum(parts.values()) for name, parts in plan.moments.items()}
    worst = max(sizes, key=sizes.__getitem__)
    for text, changed in _changes(plan):
        if changed.fits:
            advice = f"It would fit with {text}"
            break
    else:
        advice = (
            "No single change is enough: take a smaller model, or several of "
            "config.policy.remat=full, config.policy.dtype=bfloat16, a smaller "
            "config.rollout.max_completion_tokens and more devices with a larger "
            "config.mesh.fsdp"
        )
    return (
        f"the run does not fit: {_written(sizes[worst])} are needed on each "
        f"{plan.device.name} ({worst}), which has {_written(plan.limit_bytes)} to use. "
        f"{advice}"
    )


def _written(size: float) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"


def _changes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Yields single changes of a run, what costs least first."""
    footprint, device, limit = plan.footprint, plan.device, plan.limit_bytes
    config = footprint.config

    def changed(name: str, value: Any, shown: Any = None) -> tuple[str, Plan]:
        section, field = name.split(".")
        part = dataclasses.replace(getattr(config, section), **{field: value})
        new = dataclasses.replace(config, **{section: part})
        text = f"--config.{name}={value if shown is None else shown}"
        return text, make_plan(
            dataclasses.replace(footprint, config=new), device, limit
        )

    more = _MOST_GPU_FRACTION * device.memory_bytes
    if device.backend == "gpu" and more > limit:
        text = f"{GPU_FRACTION}={_MOST_GPU_FRACTION} in the environment"
        yield text, make_plan(footprint, device, more)
    if tokens := plan.largest_micro_batch_tokens:
        yield changed("trainer.micro_batch_tokens", tokens)
    if rows := plan.largest_rows:
        yield changed("rollout.max_rows", rows)
    yield changed("policy.remat", choices.Remat.FULL, "full")
    yield from _split(plan, 1)
    yield changed("policy.dtype", choices.Dtype.BFLOAT16, "bfloat16")
    times = 2
    while times * footprint.mesh.size <= _MOST_DEVICES:
        yield from _split(plan, times)
        times *= 2
    yield changed("objective.kl_coef", 0.0)
    tokens = config.rollout.max_completion_tokens // 2
    while tokens >= _FEWEST_COMPLETION_TOKENS:
        yield changed("rollout.max_completion_tokens", tokens)
        tokens //= 2


def _split(plan: Plan, times: int) -> Iterator[tuple[str, Plan]]:
    """Yields the run on so many times its devices, all of which split the weights."""
    footprint = plan.footprint
    data, fsdp, tensor = footprint.mesh.shape.values()
    split = times * data * fsdp
    mesh = sharding.abstract_mesh(1, split, tensor, split * tensor)
    even = footprint.step_rows % split == 0 and _divides(footprint.arch, mesh)
    if plan.device.backend == "cpu" or not even:  # CPU devices share one memory
        return
    text = f"--config.mesh.fsdp={split}"
    if footprint.config.mesh.data > 1:
        text += " --config.mesh.data=1"
    if times > 1:
        text += f" on {mesh.size} devices"
    larger = dataclasses.replace(footprint, mesh=mesh)
    yield text, make_plan(larger, plan.device, plan.limit_bytes)


def _divides(arch: Architecture, mesh: sharding.AnyMesh) -> bool:
    try:
        sharding.check_mesh(arch, mesh)
    except ValueError:
        return False
    return True
