"""When the limit of completions is raised."""

import json

import pytest

from grpo_jax import config as c
from grpo_jax.rollout_config import StagesConfig
from grpo_jax.trainer.stages import Stages


def stages_of(most=100, **fields):
    config = c.RolloutConfig(
        max_completion_tokens=most, stages=StagesConfig(**fields)
    ).seal()
    return Stages(config)


def limits(stages, truncated):
    """The limit that each step is taken under."""
    return [stages.observe(each)["rollout/limit_tokens"] for each in truncated]


def test_without_stages_the_limit_is_that_of_the_configuration():
    assert limits(stages_of(), [1.0] * 5) == [100] * 5


def test_by_steps_up_to_the_limit_of_the_configuration():
    stages = stages_of(initial_tokens=30, every_steps=2)
    assert limits(stages, [0.0] * 8) == [30, 30, 60, 60, 100, 100, 100, 100]


def test_by_truncation_averaged_over_the_last_steps_of_the_stage():
    stages = stages_of(initial_tokens=40, truncated_fraction=0.5, window=2)
    # 0.9 alone is no window; (0.9 + 0.1) / 2 is enough; then a stage begins anew.
    assert limits(stages, [0.9, 0.1, 0.9, 0.0, 0.4, 0.6, 1.0]) == [
        *(40, 40, 80, 80, 80, 80),
        100,
    ]


def test_whichever_comes_first():
    both = dict(initial_tokens=25, every_steps=3, truncated_fraction=0.5, window=1)
    assert limits(stages_of(**both), [0.1, 0.9, 0.0, 0.0, 0.0, 0.0]) == [
        *(25, 25, 50, 50, 50),
        100,
    ]


def test_another_factor():
    stages = stages_of(initial_tokens=10, factor=3.0, every_steps=1)
    assert limits(stages, [0.0] * 4) == [10, 30, 90, 100]


def test_it_goes_on_from_its_state():
    fields = dict(initial_tokens=20, truncated_fraction=0.5, window=3)
    truncated = [0.9, 0.2, 0.8, 0.1, 0.9, 0.9, 0.9, 0.0]
    whole = limits(stages_of(**fields), truncated)
    for cut in range(len(truncated)):
        first, second = stages_of(**fields), stages_of(**fields)
        before = limits(first, truncated[:cut])
        second.set_state(json.loads(json.dumps(first.get_state())))
        assert before + limits(second, truncated[cut:]) == whole


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(initial_tokens=10), "nothing raises it: set .*every_steps"),
        (dict(initial_tokens=101, every_steps=1), "initial_tokens is 101: use at most"),
        (dict(factor=1.0), "factor is 1.0: use a value above 1"),
        (dict(truncated_fraction=1.5), "truncated_fraction is 1.5"),
        (dict(window=0), "window is 0: use at least 1"),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        stages_of(**fields)
