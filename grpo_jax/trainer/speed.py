"""How fast a step was, and how far that is from what the devices can do."""

import jax
import numpy as np

from grpo_jax.config import TrainConfig
from grpo_jax.policy import costs, devices
from grpo_jax.policy.presets import Architecture
from grpo_jax.records import Trajectories
from grpo_jax.rollout.setup import RolloutStats


def speed_metrics(
    config: TrainConfig,
    arch: Architecture,
    trajectories: Trajectories,
    sampler: RolloutStats,
    times: dict[str, float],
) -> dict[str, float]:
    """Returns rates of the rollout and of the updates of one step.

    Operations and bytes are those the method needs (`policy.costs`): padding and
    recomputation count as waste. Fractions of a device's peak are left out where the
    peak is not known.

    Args:
      config: of the run.
      arch: the shape of the model.
      trajectories: what was sampled and trained on.
      sampler: what the rollout did.
      times: time/PHASE_seconds of the step.
    """
    update_seconds = times["time/update_seconds"]
    flops = _trained_flops(config, arch, trajectories) / update_seconds
    read = sampler.decode_bytes / max(sampler.decode_seconds, 1e-9)
    busy = sampler.decode_seconds + update_seconds
    busy += times.get("time/evaluation_seconds", 0.0)
    metrics = {
        "rollout/tokens_per_second": sampler.sampled_tokens
        / times["time/rollout_seconds"],
        "rollout/useful_fraction": sampler.sampled_tokens
        / max(sampler.decode_slots, 1),
        "rollout/prefill_padding_fraction": 1
        - sampler.prefill_tokens / max(sampler.prefill_slots, 1),
        "rollout/gigabytes_per_second": read / 1e9,
        "trainer/tokens_per_second": float(trajectories.lengths.sum()) / update_seconds,
        "trainer/teraflops_per_second": flops / 1e12,
        "time/host_fraction": max(0.0, 1 - busy / times["time/step_seconds"]),
    }
    if device := devices.detect():
        count = jax.device_count()
        peak_read, peak = device.bytes_per_second, device.flops_per_second
        metrics["rollout/bandwidth_fraction"] = read / (count * peak_read)
        metrics["trainer/model_flops_fraction"] = flops / (count * peak)
    return metrics


def _trained_flops(
    config: TrainConfig, arch: Architecture, trajectories: Trajectories
) -> float:
    """Returns the operations of all updates of a step, and of what they are held to."""
    lengths = trajectories.lengths.astype(np.int64)
    scored = lengths - trajectories.prompt_lengths
    forward = costs.forward_flops(arch, lengths, scored)
    passes = 3 * config.trainer.num_iterations
    if config.objective.kl_coef:
        passes += 1
    if config.trainer.num_iterations * config.trainer.minibatches > 1:
        passes += 1
    return passes * forward
