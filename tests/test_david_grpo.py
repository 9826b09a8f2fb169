"""The two published stages, number by number."""

import pytest

from configs import david_grpo
from grpo_jax import choices


@pytest.mark.parametrize("name", ["miniature", "warmup", "train"])
def test_every_configuration_is_possible(name):
    config = david_grpo.get_config(name).seal()
    assert config.episode.environment == "search"
    assert config.reward.weights["david"] == 1.0


def test_another_name_is_refused():
    with pytest.raises(ValueError, match=r"no 'stage1': use one of \['miniature', 'bu"):
        david_grpo.get_config("stage1")


@pytest.mark.parametrize("name", ["warmup", "train"])
def test_what_the_stages_share(name):
    config = david_grpo.get_config(name).seal()
    rollout, objective, optimizer = config.rollout, config.objective, config.optimizer
    assert config.task.tags is choices.Tags.DAVID and config.task.instructions
    assert rollout.group_size == 5 and rollout.sampling.temperature == 0.6
    assert (rollout.max_prompt_tokens, rollout.max_completion_tokens) == (1024, 8192)
    assert rollout.order is choices.Order.FILE
    assert objective.temperature == 0  # that of sampling
    assert (objective.clip_low, objective.clip_high) == (0.2, 0.2)
    assert optimizer.schedule is choices.Schedule.CONSTANT
    assert (optimizer.beta1, optimizer.beta2) == (0.9, 0.999)
    assert (optimizer.weight_decay, optimizer.max_gradient_norm) == (0.01, 1.0)
    assert config.trainer.num_iterations == 1
    assert config.retrieval.top_k == 3
    assert config.reward.search.evidence_weight == 0.5


def test_in_what_the_stages_differ():
    warmup, train = (david_grpo.get_config(name).seal() for name in ("warmup", "train"))
    pairs = [
        (
            each.rollout.prompts_per_step,
            each.trainer.steps,
            each.trainer.minibatches,
            each.optimizer.learning_rate,
            each.objective.kl_coef,
            each.episode.max_calls,
            each.experts.below,
            each.expansion.continuations,
        )
        for each in (warmup, train)
    ]
    assert pairs == [
        (4, 50, 1, 1e-5, 0.0, 5, 1.0, 0),
        (24, 215, 2, 1e-6, 0.001, 10, 0.0, 5),
    ]
    assert warmup.experts.reward == 1.0  # its own formula says 0.75
    assert not train.expansion.mask_prefix
    assert train.objective.divergence is choices.Divergence.K2
