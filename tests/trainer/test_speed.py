import numpy as np
import pytest

from grpo_jax import config as c
from grpo_jax.policy import costs, devices
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rollout.setup import RolloutStats
from grpo_jax.trainer import speed
from tests import helpers

TIMES = {
    "time/rollout_seconds": 4.0,
    "time/update_seconds": 2.0,
    "time/step_seconds": 10.0,
    "time/evaluation_seconds": 1.0,
}
STATS = RolloutStats(
    sampled_tokens=12,
    decode_slots=48,
    decode_seconds=3.0,
    decode_bytes=6_000_000_000,
    prefill_tokens=6,
    prefill_slots=8,
)


def rows():
    tokens = np.zeros((2, 12), np.int32)
    return Trajectories(
        tokens=tokens,
        origins=np.full(tokens.shape, Origin.SAMPLED, np.uint8),
        behavior_log_probs=np.zeros(tokens.shape, np.float32),
        kept_log_mass=np.zeros(tokens.shape, np.float32),
        prompt_lengths=np.array([2, 3], np.int32),
        lengths=np.array([6, 11], np.int32),
        finished=np.ones(2, bool),
    )


def measured(monkeypatch, device=None, **changes):
    monkeypatch.setattr(devices, "detect", lambda: device)
    config = c.TrainConfig(**changes)
    return speed.speed_metrics(config, helpers.TINY, rows(), STATS, TIMES)


def test_rates_and_shares(monkeypatch):
    got = measured(monkeypatch)
    assert got["rollout/tokens_per_second"] == 12 / 4
    assert got["rollout/useful_fraction"] == 12 / 48
    assert got["rollout/prefill_padding_fraction"] == 1 / 4
    assert got["rollout/gigabytes_per_second"] == 2
    assert got["trainer/tokens_per_second"] == 17 / 2
    # Of ten seconds the devices decoded three, trained two and evaluated one.
    assert got["time/host_fraction"] == pytest.approx(0.4)
    assert not any("bandwidth" in name or "model_flops" in name for name in got)


@pytest.mark.parametrize(
    ("objective", "trainer", "passes"),
    [
        (c.ObjectiveConfig(), c.TrainerConfig(), 3),
        (c.ObjectiveConfig(kl_coef=0.1), c.TrainerConfig(), 4),
        (c.ObjectiveConfig(), c.TrainerConfig(minibatches=2), 4),
        (c.ObjectiveConfig(kl_coef=0.1), c.TrainerConfig(num_iterations=2), 8),
    ],
)
def test_operations_of_every_pass_are_counted(monkeypatch, objective, trainer, passes):
    got = measured(monkeypatch, objective=objective, trainer=trainer)
    lengths, scored = np.array([6, 11]), np.array([4, 8])
    forward = costs.forward_flops(helpers.TINY, lengths, scored)
    expected = passes * forward / 2 / 1e12
    assert got["trainer/teraflops_per_second"] == pytest.approx(expected)


def test_fractions_are_of_all_devices_of_a_known_kind(monkeypatch):
    device = devices.Device("none", 1e9, 1e9, 1e6)
    got = measured(monkeypatch, device)
    assert got["rollout/bandwidth_fraction"] == pytest.approx(2 / 8)  # eight devices
    flops = got["trainer/teraflops_per_second"] * 1e12
    assert got["trainer/model_flops_fraction"] == pytest.approx(flops / 8e6)
