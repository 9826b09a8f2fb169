import dataclasses

import jax
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.policy import devices, presets, sharding
from grpo_jax.policy.attention_kernels import Hardware
from grpo_jax.policy.devices import Device
from grpo_jax.trainer import memory, planning
from grpo_jax.trainer.memory import Footprint

SMALL = presets.preset("qwen2.5-0.5b")
# Of this one's memory most is activations.
THIN = dataclasses.replace(SMALL, num_layers=4, vocab_size=8192)
L4, H200, V5E = (devices.DEVICES[name] for name in ("L4", "H200", "v5e"))
# The limit is what a test says, and cannot be raised.
FULL_L4 = dataclasses.replace(L4, memory_bytes=0.0)


def footprint_of(
    device: Device = L4,
    arch: presets.Architecture = SMALL,
    mesh: tuple[int, int, int] = (1, 1, 1),
    policy: dict | None = None,
    rollout: dict | None = None,
    trainer: dict | None = None,
    kl_coef: float = 0.0,
) -> Footprint:
    usual = dict(
        prompts_per_step=32,
        group_size=8,
        max_prompt_tokens=256,
        max_completion_tokens=768,
    )
    config = c.TrainConfig(
        policy=c.PolicyConfig(**(policy or {})),
        rollout=c.RolloutConfig(**{**usual, **(rollout or {})}),
        trainer=c.TrainerConfig(**(trainer or {})),
        objective=c.ObjectiveConfig(kl_coef=kl_coef),
    )
    hardware = Hardware(
        device.backend, device.compute_capability, device.backend == "tpu"
    )
    planned = sharding.abstract_mesh(*mesh, mesh[0] * mesh[1] * mesh[2])
    return Footprint(config, arch, planned, hardware)


def needs(footprint: Footprint, rows: int = 0, tokens: int = 0) -> float:
    """What a run holds at its largest moment; 0 is one row, or one token."""
    moments = footprint.rollout(rows or 1) | footprint.update(tokens or 1)
    return memory.total(moments)


def advice(footprint: Footprint, limit: float, device: Device = FULL_L4) -> str:
    """What a run is told that does not fit."""
    plan = planning.make_plan(footprint, device, limit)
    assert not plan.fits
    said = planning.refusal(plan).rpartition(". ")[2]
    return said.removeprefix("It would fit with ")


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 1)])
def test_the_largest_rows_are_the_largest(mesh):
    footprint, limit = footprint_of(mesh=mesh), 16e9
    rows = planning.make_plan(footprint, L4, limit).largest_rows
    shards = footprint.shards
    assert rows % shards == 0 and shards < rows < 10_000
    assert memory.total(footprint.rollout(rows)) <= limit
    assert memory.total(footprint.rollout(rows + shards)) > limit
    assert planning.make_plan(footprint, L4, 1e9).largest_rows == 0


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 1)])
def test_the_largest_micro_batch_is_the_largest(mesh):
    footprint = footprint_of(arch=THIN, mesh=mesh)
    limit = memory.total(footprint.update(60_000)) + 1
    tokens = planning.make_plan(footprint, L4, limit).largest_micro_batch_tokens
    assert tokens == 60_000
    assert memory.total(footprint.update(tokens + footprint.shards)) > limit
    ample = planning.make_plan(footprint, L4, 1e15)
    assert ample.largest_micro_batch_tokens == footprint.update_tokens
    assert planning.make_plan(footprint, L4, 1e6).largest_micro_batch_tokens == 0


def test_a_plan_keeps_what_is_configured():
    footprint = footprint_of(
        rollout={"max_rows": 40}, trainer={"micro_batch_tokens": 3000}
    )
    plan = planning.make_plan(footprint, L4, 18e9)
    assert (plan.rows, plan.micro_batch_tokens) == (40, 3000) and plan.fits
    assert plan.moments == footprint.rollout(40) | footprint.update(3000)


def test_a_plan_chooses_what_is_fast_where_memory_allows():
    plan = planning.make_plan(footprint_of(mesh=(2, 1, 1)), H200, 100e9)
    assert (plan.rows, plan.micro_batch_tokens) == (256, 2 * 16_384)


def test_a_plan_chooses_halves_where_memory_is_short_and_leaves_headroom():
    footprint = footprint_of(arch=THIN)
    limit = memory.total(footprint.rollout(100)) / planning.HEADROOM
    assert planning.make_plan(footprint, L4, limit).rows == 64
    limit = memory.total(footprint.update(10_000)) / planning.HEADROOM
    assert planning.make_plan(footprint, L4, limit).micro_batch_tokens == 8192


def test_nothing_is_halved_where_that_is_no_help():
    plan = planning.make_plan(footprint_of(), L4, 1e9)
    assert (plan.rows, plan.micro_batch_tokens) == (256, 16_384)


def test_halves_are_whole_on_every_device():
    rows = {"prompts_per_step": 9, "group_size": 8}
    footprint = footprint_of(arch=THIN, mesh=(8, 1, 1), rollout=rows)
    needed = (memory.total(footprint.rollout(rows)) + 1 for rows in (72, 71, 39, 1))
    plans = (
        planning.make_plan(footprint, L4, size / planning.HEADROOM) for size in needed
    )
    assert [plan.rows for plan in plans] == [72, 40, 24, 8]


def test_more_of_a_gpu_comes_first():
    footprint = footprint_of(trainer={"micro_batch_tokens": 60_000})
    limit = 0.95 * needs(footprint, 256, 60_000)
    free = dataclasses.replace(L4, memory_bytes=1.2 * limit)
    flag = "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 in the environment"
    assert advice(footprint, limit, free) == flag


def test_then_a_smaller_micro_batch():
    tokens = {"micro_batch_tokens": 200_000}
    footprint = footprint_of(trainer=tokens, policy={"remat": choices.Remat.DOTS})
    flag, _, number = advice(footprint, 18e9).partition("tokens=")
    assert flag == "--config.trainer.micro_batch_"
    assert memory.total(footprint.update(int(number))) <= 18e9
    assert memory.total(footprint.update(int(number) + 1)) > 18e9


def test_then_fewer_rows():
    footprint = footprint_of(rollout={"max_rows": 20_000, "prompts_per_step": 4000})
    flag, _, number = advice(footprint, 18e9).partition("max_rows=")
    assert flag == "--config.rollout."
    assert memory.total(footprint.rollout(int(number))) <= 18e9


def test_then_remat():
    rollout = {"max_completion_tokens": 3840, "max_rows": 8}
    stored, short = (
        footprint_of(arch=THIN, policy={"remat": remat}, rollout=rollout)
        for remat in (choices.Remat.NONE, choices.Remat.FULL)
    )
    limit = 1.01 * needs(short, rows=8)
    assert advice(stored, limit) == "--config.policy.remat=full"


def test_then_weights_that_its_devices_share():
    footprint = footprint_of(V5E, mesh=(4, 1, 1), arch=presets.preset("qwen2.5-1.5b"))
    assert advice(footprint, 16e9, V5E) == "--config.mesh.fsdp=4"
    config = dataclasses.replace(footprint.config, mesh=c.MeshConfig(data=4))
    explicit = dataclasses.replace(footprint, config=config)
    flags = "--config.mesh.fsdp=4 --config.mesh.data=1"
    assert advice(explicit, 16e9, V5E) == flags


def test_then_bfloat16():
    rollout = {"max_completion_tokens": 15_744, "max_rows": 8}
    wide, narrow = (
        footprint_of(arch=THIN, policy={"dtype": dtype}, rollout=rollout)
        for dtype in (choices.Dtype.FLOAT32, choices.Dtype.BFLOAT16)
    )
    limit = 1.01 * needs(narrow, rows=8)
    assert advice(wide, limit) == "--config.policy.dtype=bfloat16"


def test_then_more_devices():
    footprint = footprint_of(V5E, presets.preset("qwen2.5-1.5b"))
    assert advice(footprint, 16e9, V5E) == "--config.mesh.fsdp=4 on 4 devices"
    two = dataclasses.replace(footprint, mesh=sharding.abstract_mesh(1, 2, 1, 2))
    assert not planning.make_plan(two, V5E, 16e9).fits


def test_then_no_reference():
    # An odd number of rows cannot be split over more devices.
    odd = {"prompts_per_step": 1, "group_size": 3}
    kept, free = (
        footprint_of(arch=THIN, kl_coef=kl_coef, rollout=odd) for kl_coef in (0.01, 0.0)
    )
    limit = 1.001 * needs(free)
    assert advice(kept, limit) == "--config.objective.kl_coef=0.0"


def test_then_shorter_completions():
    odd = {"prompts_per_step": 1, "group_size": 3}
    long, short = (
        footprint_of(arch=THIN, rollout=odd | {"max_completion_tokens": tokens})
        for tokens in (30_000, 7500)
    )
    limit = 1.01 * needs(short)
    assert advice(long, limit) == "--config.rollout.max_completion_tokens=7500"


def test_or_no_single_change():
    rollout = {"prompts_per_step": 1, "group_size": 3}
    said = advice(footprint_of(rollout=rollout), 2e9)
    assert said.startswith("No single change is enough: take a smaller model, or")


def test_a_refusal_names_the_moment_and_the_limit():
    footprint = footprint_of(trainer={"micro_batch_tokens": 200_000})
    plan = planning.make_plan(footprint, L4, 18e9)
    sizes = {name: sum(parts.values()) for name, parts in plan.moments.items()}
    need = f"{sizes['backward'] / 1e9:.2f} GB are needed on each L4 (backward)"
    assert sizes["backward"] == max(sizes.values())
    assert planning.refusal(plan).startswith(
        f"the run does not fit: {need}, which has 18.00 GB to use. It would fit with"
    )


def test_check_refuses_and_can_be_told_not_to():
    footprint = footprint_of(trainer={"micro_batch_tokens": 200_000})
    plan = planning.make_plan(footprint, L4, 18e9)
    with pytest.raises(ValueError, match=r"estimate: config.trainer.memory_check=fals"):
        planning.check(plan)
    forced = {"micro_batch_tokens": 200_000, "memory_check": False}
    planning.check(planning.make_plan(footprint_of(trainer=forced), L4, 18e9))
    planning.check(planning.make_plan(footprint_of(), L4, 18e9))


def test_a_gpu_lends_three_quarters_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv(planning.GPU_FRACTION, raising=False)
    assert planning.usable_bytes(H200) == 0.75 * 141e9
    monkeypatch.setenv(planning.GPU_FRACTION, ".92")
    assert planning.usable_bytes(H200) == 0.92 * 141e9
    assert planning.usable_bytes(V5E) == 16e9


def test_processors_under_several_names_share_their_memory():
    device, limit = planning.this_device()
    assert device.name == "CPU"
    assert limit == device.memory_bytes / jax.device_count()


def test_hardware_of_a_named_device_decides_the_kernel():
    config, mesh = footprint_of().config, sharding.abstract_mesh(1, 1, 1, 1)

    def kernel(device: Device, **changes) -> choices.Attention:
        new = dataclasses.replace(config, **changes)
        return planning.plan_on(new, SMALL, mesh, device).footprint.kernel

    assert kernel(V5E) is choices.Attention.SPLASH
    assert kernel(H200) is choices.Attention.CUDNN
    assert kernel(devices.DEVICES["T4"]) is choices.Attention.XLA_CHUNKED
    with pytest.raises(ValueError, match=r"config.policy.attention is cudnn"):
        kernel(V5E, policy=c.PolicyConfig(attention=choices.Attention.CUDNN))
