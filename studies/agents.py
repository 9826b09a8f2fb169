"""Do agents of the full method search deeper, and priced ones no deeper than needed?

    make study-agents
    python -m studies.run agents --only=stops/recall/0    # one run, and its base

A run is REGIME/ARM/SEED. All arms of a seed start from one base, see the same questions
in the same order, and end when the policy has generated equally many tokens, those of
continuations included.
"""

import dataclasses
from collections.abc import Mapping

from configs import david_grpo
from grpo_jax.config import TrainConfig
from studies import school
from studies.study import Name

# What a base learns before it learns what it does wrong.
FLAWLESS = "flawless"
GENERATED_TOKENS = 120_000
_SHARES = ("one_hop", "two_hops", "three_hops", "four_hops")
# Rewards with a weight of 0 are watched.
_WATCHED = {"exact_match": 0.0, "evidence_recall": 0.0, "search_format": 0.0}
_PLAIN = {"reward.weights": _WATCHED | {"exact_match": 1.0}}
_RECALL = {"reward.weights": _WATCHED | {"david": 1.0}}
_EXPERTS = {"experts.below": 1.0}
_EXPANSION = {"expansion.continuations": 8}
_ALL = _RECALL | _EXPERTS | _EXPANSION
# A right answer adds 0.5 or 1. Two calls more than documents needed take 0.2 of it.
_BUDGET = {
    "budget.call_cost": 1.0,
    "budget.free_by_evidence": True,
    "budget.max_cost": 2.0,
    "budget.right_reward": "exact_match",
    "budget.initial_beta": 0.2,
}
# 2.5 calls are needed in the mean.
_HELD = {
    "budget.call_cost": 1.0,
    "budget.max_cost": 4.0,
    "budget.right_reward": "exact_match",
    "budget.beta_rate": 0.1,
    "budget.target_cost": 2.5,
    "budget.max_beta": 0.8,
}


@dataclasses.dataclass(frozen=True)
class Regime(school.Regime):
    """Where agents are compared.

    Attributes:
      lesson: fields of what the base is taught after school, and for how long.
    """

    lesson: Mapping[str, object]


REGIMES = {
    "stops": Regime(
        "the base stops after a search nine times in ten",
        seeds=3,
        arms={
            "plain": _PLAIN,
            "experts": _PLAIN | _EXPERTS,
            "recall": _RECALL,
            "expansion": _PLAIN | _EXPANSION,
            "all": _ALL,
            "all_budget": _ALL | _BUDGET,
        },
        lesson={
            "warm_start.steps": 200,
            "task.world.early_stop_fraction": 0.9,
            "task.world.needless_call_fraction": 0.3,
        },
    ),
    "asks": Regime(
        "the base searches once more than it needs nine times in ten",
        seeds=3,
        arms={
            "plain": _PLAIN,
            "priced": _PLAIN | _BUDGET,
            "held": _PLAIN | _HELD,
        },
        lesson={"warm_start.steps": 600, "task.world.needless_call_fraction": 0.9},
    ),
}


def get_config(run: str = "stops/all/0") -> TrainConfig:
    """Returns the configuration of a run; its `policy.path` is the default place."""
    name = Name.parse(run, arms())
    config = david_grpo.get_config()
    config.seed = name.seed
    if before := start(name):
        config.policy.path = f"runs/study_agents/{before}/model"
    world = config.task.world
    world.entities, world.train_questions = 640, 3200
    world.validation_questions, world.test_questions = 64, 256
    for share in _SHARES:
        setattr(world, share, 0.25)
    world.early_stop_fraction = world.needless_call_fraction = 0.0
    config.rollout.max_completion_tokens = 160
    config.evaluation.test_problems = 0
    config.evaluation.every_steps = 0
    config.evaluation.greedy = False
    config.warm_start.demonstrations = 0
    if name.regime == school.SCHOOL:
        config.warm_start.steps = 900
        config.trainer.steps = 0
        return config
    regime = REGIMES[name.regime]
    school.set_fields(config, regime.lesson)
    if name.arm == school.BASE:
        config.warm_start.optimizer.learning_rate = 3e-4
        config.trainer.steps = 0
        return config
    config.warm_start.steps = 0
    config.trainer.steps = 200
    config.trainer.max_generated_tokens = GENERATED_TOKENS
    school.set_fields(config, regime.arms[name.arm])
    return config


def start(name: Name) -> Name | None:
    """Returns the run that a run starts from."""
    return school.start(name, lessons=(FLAWLESS,))


def arms() -> dict[str, list[str]]:
    """Returns the arms of every regime, with what they start from."""
    return school.arms(REGIMES, lessons=(FLAWLESS,))


def names() -> list[Name]:
    """Returns the runs that are compared."""
    return school.names(REGIMES)
