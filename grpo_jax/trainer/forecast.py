"""How long a planned run would take, and the plan as plain data.

A step of decoding cannot be faster than its bytes at the device's bandwidth or its
products at the matrix rate, an update not faster than its products. What programs reach
of that is assumed here, in one place.
"""

import dataclasses
from typing import Any

import numpy as np

from grpo_jax import choices
from grpo_jax.policy import costs
from grpo_jax.trainer import planning
from grpo_jax.trainer.planning import Plan

# Assumed shares of what the device could do.
DECODE_EFFICIENCY, UPDATE_EFFICIENCY = 0.5, 0.4


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The speed of a run.

    Attributes:
      prompt_tokens: taken for a prompt.
      completion_tokens: taken for a completion.
      rollout_tokens_per_second: completions, on all devices.
      update_tokens_per_second: prompts and completions, on all devices.
      rollout_hours: of the whole run.
      update_hours: of the whole run; rewards, evaluations and compiling come on top.
    """

    prompt_tokens: int
    completion_tokens: int
    rollout_tokens_per_second: float
    update_tokens_per_second: float
    rollout_hours: float
    update_hours: float


def forecast(plan: Plan) -> Forecast | None:
    """Returns the speed of a run; None where that of the device is not known.

    Prompts and completions are taken to be half as long as they may be.
    """
    if not plan.device.flops_per_second:
        return None
    rollout, footprint = plan.footprint.config.rollout, plan.footprint
    prompt = -(-rollout.max_prompt_tokens // 2)
    completion = -(-rollout.max_completion_tokens // 2)
    rows = min(plan.rows, footprint.step_rows)
    a_step = _decode_seconds(plan, prompt, completion) / DECODE_EFFICIENCY
    a_row = _update_flops(plan, prompt, completion) / _rate(plan)
    a_row /= UPDATE_EFFICIENCY * footprint.mesh.size
    total_rows = footprint.config.trainer.steps * footprint.step_rows
    return Forecast(
        prompt_tokens=prompt,
        completion_tokens=completion,
        rollout_tokens_per_second=rows / a_step,
        update_tokens_per_second=(prompt + completion) / a_row,
        rollout_hours=total_rows * completion * a_step / rows / 3600,
        update_hours=total_rows * a_row / 3600,
    )


def _decode_seconds(plan: Plan, prompt: int, completion: int) -> float:
    """Returns the least seconds of a step of decoding."""
    footprint, arch = plan.footprint, plan.footprint.arch
    read = footprint.weights(footprint.itemsize, fsdp=False)
    if not arch.tied_head:  # of the embedding only some rows are read
        read -= footprint.itemsize * footprint.table
    lines, n, _ = footprint.grids(plan.rows)[0]
    cached = lines * (prompt + n * completion / 2)  # rows are half done on average
    per_token = costs.kv_bytes_per_token(arch, footprint.itemsize)
    read += cached * per_token / footprint.tensor
    flops = costs.decode_flops(
        arch, np.array([prompt]), np.array([prompt + completion])
    )
    flops *= lines * n / completion / footprint.tensor
    return max(read / plan.device.bytes_per_second, flops / _rate(plan))


def _update_flops(plan: Plan, prompt: int, completion: int) -> float:
    """Returns the operations of all updates of a step on one of its rows."""
    arch, config = plan.footprint.arch, plan.footprint.config
    lengths, scored = np.array([prompt + completion]), np.array([completion])
    forward = costs.forward_flops(arch, lengths, scored)
    stem = costs.forward_flops(arch, lengths, 0 * scored)
    an_update = 3 * forward + (forward - stem)  # the logits are computed again
    if config.policy.remat in (choices.Remat.FULL, choices.Remat.ATTENTION):
        an_update += stem
    scorings = bool(config.objective.kl_coef)
    scorings += config.trainer.num_iterations * config.trainer.minibatches > 1
    return config.trainer.num_iterations * an_update + scorings * forward


def _rate(plan: Plan) -> float:
    """Returns the matrix rate; a GPU multiplies float32 at half of it, as TF32."""
    narrow = plan.footprint.itemsize < 4 or plan.device.backend != "gpu"
    return plan.device.flops_per_second / (1 if narrow else 2)


def as_data(plan: Plan, price_per_hour: float) -> dict[str, Any]:
    """Returns a plan and its forecast as plain data; bytes are those of each device.

    Args:
      plan: of the run.
      price_per_hour: dollars for all devices together; 0 is not known.
    """
    footprint, config = plan.footprint, plan.footprint.config
    speed = forecast(plan)
    return {
        "device": plan.device.name,
        "mesh": dict(footprint.mesh.shape),
        "parameters": costs.total_params(footprint.arch),
        "dtype": config.policy.dtype.value,
        "remat": config.policy.remat.value,
        "moments": plan.moments,
        "limit_bytes": plan.limit_bytes,
        "rows": plan.rows,
        "rows_of_a_step": footprint.step_rows,
        "largest_rows": plan.largest_rows,
        "micro_batch_tokens": plan.micro_batch_tokens,
        "tokens_of_an_update": footprint.update_tokens,
        "largest_micro_batch_tokens": plan.largest_micro_batch_tokens,
        "steps": config.trainer.steps,
        "refills": config.rollout.zero_variance is choices.ZeroVariance.REFILL,
        "efficiency": {"rollout": DECODE_EFFICIENCY, "update": UPDATE_EFFICIENCY},
        "speed": speed and dataclasses.asdict(speed),
        "price_per_hour": price_per_hour,
        "problem": "" if plan.fits else planning.refusal(plan),
    }
