"""Time and price of a plan, by hand."""

import dataclasses
import json

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.policy import costs, devices
from grpo_jax.trainer import forecast, planning
from grpo_jax.trainer.planning import Plan
from tests.trainer.test_planning import H200, SMALL, footprint_of

PROMPT, COMPLETION, ROWS, STEPS = 128, 384, 256, 100


def plan_of(device=H200, **changes) -> Plan:
    return planning.make_plan(footprint_of(device, **changes), device, 100e9)


def speed_of(plan: Plan) -> forecast.Forecast:
    speed = forecast.forecast(plan)
    assert speed is not None
    return speed


def decode_seconds(plan: Plan) -> float:
    """Of one step of all rows, if half of the limit is reached."""
    return 0.5 * min(plan.rows, ROWS) / speed_of(plan).rollout_tokens_per_second


def test_half_of_the_limits_is_expected_of_prompts_and_completions():
    speed = speed_of(plan_of())
    assert (speed.prompt_tokens, speed.completion_tokens) == (PROMPT, COMPLETION)


def test_a_step_of_decoding_reads_weights_prompts_and_half_of_the_completions():
    cached = (32 * PROMPT + ROWS * COMPLETION / 2) * 12_288
    read = (2 * costs.total_params(SMALL) + cached) / 4.8e12
    assert decode_seconds(plan_of()) == pytest.approx(read, rel=1e-3)


def test_a_step_of_decoding_may_be_bound_by_its_products():
    slow = dataclasses.replace(H200, flops_per_second=1e12)
    flops = costs.decode_flops(SMALL, np.array([PROMPT]), np.array([512]))
    seconds = ROWS * flops / COMPLETION / 1e12
    assert decode_seconds(plan_of(slow)) == pytest.approx(seconds)


def test_an_untied_embedding_is_not_read():
    untied = dataclasses.replace(SMALL, tied_head=False)
    tied = decode_seconds(plan_of())
    assert decode_seconds(plan_of(arch=untied)) == pytest.approx(tied)


def test_hours_are_those_of_all_rows_of_all_steps():
    speed = speed_of(plan_of())
    tokens = STEPS * ROWS * COMPLETION
    hours = tokens / speed.rollout_tokens_per_second / 3600
    assert speed.rollout_hours == pytest.approx(hours)
    tokens = STEPS * ROWS * (PROMPT + COMPLETION)
    hours = tokens / speed.update_tokens_per_second / 3600
    assert speed.update_hours == pytest.approx(hours)
    twice = speed_of(plan_of(trainer={"steps": 2 * STEPS}))
    assert twice.update_hours == pytest.approx(2 * speed.update_hours)


def test_an_update_costs_three_passes_and_what_is_recomputed():
    lengths, scored = np.array([512]), np.array([COMPLETION])
    forward = costs.forward_flops(SMALL, lengths, scored)
    stem = costs.forward_flops(SMALL, lengths, 0 * scored)
    stored = 3 * forward + (forward - stem)

    def flops(**changes) -> float:
        speed = speed_of(plan_of(**changes))
        return 512 / speed.update_tokens_per_second * 0.4 * 989e12

    assert flops(policy={"remat": choices.Remat.NONE}) == pytest.approx(stored)
    assert flops(policy={"remat": choices.Remat.DOTS}) == pytest.approx(stored)
    full = stored + stem
    assert flops() == pytest.approx(full)
    assert flops(kl_coef=0.1) == pytest.approx(full + forward)
    twice = flops(trainer={"num_iterations": 2})
    assert twice == pytest.approx(2 * full + forward)
    # TF32 has half of the rate.
    wide = flops(policy={"dtype": choices.Dtype.FLOAT32})
    assert wide == pytest.approx(2 * full)


def test_devices_share_the_work():
    one, four = speed_of(plan_of()), speed_of(plan_of(mesh=(4, 1, 1)))
    assert four.update_hours == pytest.approx(one.update_hours / 4)
    # Every one reads all weights.
    assert one.rollout_hours / 4 < four.rollout_hours < one.rollout_hours
    split = speed_of(plan_of(mesh=(1, 1, 2)))
    assert split.rollout_hours == pytest.approx(one.rollout_hours / 2, rel=1e-3)


def test_waves_of_fewer_rows_take_longer():
    whole = speed_of(plan_of())
    waves = speed_of(plan_of(rollout={"max_rows": 32}))
    assert waves.rollout_tokens_per_second < 0.5 * whole.rollout_tokens_per_second
    assert waves.update_hours == whole.update_hours


def test_what_is_not_known_is_not_forecast():
    assert forecast.forecast(plan_of(devices.host())) is None


def test_a_plan_as_plain_data():
    plan = plan_of()
    data = json.loads(json.dumps(forecast.as_data(plan, 3.0)))
    assert data["parameters"] == costs.total_params(SMALL)
    assert data["problem"] == "" and data["price_per_hour"] == 3.0
    assert data["rows"] == data["rows_of_a_step"] == ROWS < data["largest_rows"]
    assert data["moments"] == plan.moments
    assert data["speed"]["update_hours"] == speed_of(plan).update_hours


def test_a_plan_that_does_not_fit_says_why():
    plan = planning.make_plan(footprint_of(H200), H200, 5e9)
    data = forecast.as_data(plan, 0.0)
    assert data["largest_rows"] == 0
    assert data["problem"] == planning.refusal(plan)
