"""The published experiments, number by number, and ours beside them."""

import math

import pytest

from configs import open_rs
from grpo_jax import choices
from grpo_jax.trainer.optimizer import make_schedule

NAMES = ("rs1", "rs2", "rs3", "ours")


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_is_possible(name):
    open_rs.get_config(name).seal()


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"no 'rs4': use one of \['rs1', 'rs2'"):
        open_rs.get_config("rs4")


@pytest.mark.parametrize("name", NAMES[:3])
def test_what_the_experiments_share(name):
    config = open_rs.get_config(name).seal()
    rollout, objective = config.rollout, config.objective
    assert rollout.prompts_per_step == 3 * 6 * 4 / 6 == 12
    assert rollout.group_size == 6 and rollout.sampling.temperature == 0.7
    assert objective.temperature == 1.0  # off the policy that samples
    assert objective.kl_coef == 0.04
    assert (objective.clip_low, objective.clip_high) == (0.2, 0.2)
    assert objective.aggregation is choices.Aggregation.GROUP_TOKEN_MEAN
    assert not objective.mask_truncated
    assert rollout.zero_variance is choices.ZeroVariance.KEEP
    rate = make_schedule(config.optimizer, config.trainer.steps)
    for step, expected in ((0, 0), (25, 5e-7), (50, 1e-6), (275, 5.5e-7), (500, 1e-7)):
        assert float(rate(step)) == pytest.approx(expected, abs=5e-11)
    # A full epoch, of which the prompts of no whole step are left out.
    steps = {"rs1": math.floor(18_615 / 12)}.get(name, math.floor(7_000 / 12))
    assert steps == {"rs1": 1551}.get(name, 583)
    assert config.trainer.steps == 500


def test_in_what_the_experiments_differ():
    rs1, rs2, rs3 = (open_rs.get_config(name).seal() for name in NAMES[:3])
    limits = [each.rollout.max_completion_tokens for each in (rs1, rs2, rs3)]
    assert limits == [4096, 3584, 3584]
    assert rs1.task.train_path != rs2.task.train_path == rs3.task.train_path
    assert rs1.reward.weights == rs2.reward.weights
    paid = {name: weight for name, weight in rs3.reward.weights.items() if weight}
    assert paid == {"open_rs_format": 1.0, "legacy_open_rs_cosine": 2.0}
    assert rs3.reward.cosine.max_tokens == 3584
    assert "English" in rs3.task.system_prompt
    assert "English" not in rs2.task.system_prompt


def test_ours_is_without_what_went_wrong():
    config = open_rs.get_config("ours").seal()
    assert not any("legacy" in name for name in config.reward.weights)
    assert config.objective.temperature == 0 and config.objective.mask_truncated
    assert config.rollout.zero_variance is choices.ZeroVariance.REFILL
    assert config.checkpoint.best_rule is choices.Best.ONE_STANDARD_ERROR
    assert config.task.validation_rows and config.evaluation.every_steps
    assert config.reward.cosine.max_tokens == 0  # at the limit, in tokens
