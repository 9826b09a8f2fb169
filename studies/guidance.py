"""Does guidance help, which kind, and where? Miniature runs that answer it.

    make study-guidance
    python -m studies.run guidance --only=sparse/additive/0    # one run, and its base

A run is REGIME/ARM/SEED. Its arm says how it is guided; arms of one regime and seed
start from one base and see the same problems in the same order. `studies/school.py`
says how bases are made, here on problems of seven steps.
"""

import dataclasses

from configs import g2rpoa
from grpo_jax.choices import GuidanceLength, GuidanceLoss, Order
from grpo_jax.config import GuidanceConfig, TrainConfig
from studies import school
from studies.study import Name

# Of 41 tokens of reasoning, 36 are all but the last step.
_PLAIN = {"guidance.fraction": 0.0}
_FIXED = {"guidance.length": GuidanceLength.FIXED}
_LINEAR = {"guidance.length": GuidanceLength.LINEAR}
_ADDITIVE = {"guidance.length": GuidanceLength.ADDITIVE}
_MULTIPLICATIVE = {
    "guidance.length": GuidanceLength.MULTIPLICATIVE,
    "guidance.minimum": 6,
}
_SHORT = {"guidance.initial": 18}
_ALL = {"guidance.fraction": 1.0}
_INCLUDE = {"guidance.loss": GuidanceLoss.INCLUDE}
_OFF_POLICY = {"guidance.loss": GuidanceLoss.OFF_POLICY}
_SLOW = {"optimizer.learning_rate": 1.5e-4}
_RULES = {
    "plain": _PLAIN,
    "fixed": _FIXED,
    "linear": _LINEAR,
    "additive": _ADDITIVE,
    "multiplicative": _MULTIPLICATIVE,
}


@dataclasses.dataclass(frozen=True)
class Regime(school.Regime):
    """Where ways of guidance are compared.

    Attributes:
      task: where its problems and demonstrations come from.
      mistakes: in demonstrations, where the task leaves that open.
      base_steps: supervised steps of the base, after school.
      base: the regime whose base is taken; its own if empty.
      steps: of GRPO.
      problems: for training, if not the task's own number.
      tiers: whether problems come in order of difficulty.
    """

    task: str = "arithmetic"
    mistakes: float = 0.5
    base_steps: int = 300
    base: str = ""
    steps: int = 40
    problems: int = 20_000
    tiers: bool = False


REGIMES = {
    "sparse": Regime(
        "rewards are rare",
        seeds=5,
        arms=_RULES
        | {
            "fixed_all": _FIXED | _ALL,
            "fixed_include": _FIXED | _INCLUDE,
            "additive_include": _ADDITIVE | _INCLUDE,
            "additive_off_policy": _ADDITIVE | _OFF_POLICY,
            "additive_failing": _ADDITIVE | {"guidance.only_failing": True},
            "additive_annealed": _ADDITIVE | {"guidance.anneal_fraction": 0.5},
        },
    ),
    "wrong": Regime(
        "the base is wrong, also when it is greedy",
        seeds=5,
        arms=_RULES
        | {
            "plain_slow": _PLAIN | _SLOW,
            "fixed_short": _FIXED | _SHORT,
            "additive_short": _ADDITIVE | _SHORT,
            "fixed_include": _FIXED | _INCLUDE,
        },
        task="studies.tasks:believing",
        base_steps=500,
        steps=60,
    ),
    "tiers": Regime(
        "difficulty drifts, from no subtraction to seven",
        seeds=3,
        arms=_RULES,
        task="studies.tasks:drifting",
        problems=640,  # one pass
        tiers=True,
    ),
    "dense": Regime(
        "rewards are common",
        seeds=3,
        arms={name: _RULES[name] for name in ("plain", "fixed", "additive")},
        mistakes=0.25,
    ),
    "repeated": Regime(
        "problems come again, five times each",
        seeds=3,
        arms={
            "plain": _PLAIN,
            "additive": _ADDITIVE,
            "additive_per_prompt": _ADDITIVE | {"guidance.per_prompt": True},
        },
        base="sparse",
        problems=128,
    ),
}


def get_config(run: str = "sparse/additive/0") -> TrainConfig:
    """Returns the configuration of a run; its `policy.path` is the default place."""
    name = Name.parse(run, arms())
    config = g2rpoa.miniature()
    config.seed = name.seed
    if before := start(name):
        config.policy.path = f"runs/study_guidance/{before}/model"
    if name.regime == school.SCHOOL:
        config.guidance = GuidanceConfig()
        school.set_lesson(config, name.arm)
        return config
    regime = REGIMES[name.regime]
    config.task.name = regime.task
    config.task.arithmetic.mistake_fraction = regime.mistakes
    if name.arm == school.BASE:
        config.warm_start.steps = regime.base_steps
        config.warm_start.optimizer.learning_rate = 1e-3
        config.trainer.steps = 0
        config.guidance = GuidanceConfig()
        return config
    config.warm_start.steps = 0
    config.trainer.steps = regime.steps
    config.trainer.logged_groups = 1
    config.task.arithmetic.train_problems = regime.problems
    if regime.tiers:
        config.rollout.order = Order.TIERS
    config.evaluation.every_steps = 5
    config.evaluation.validation_problems = 128
    config.guidance.ladder_prompts = 256 if name.arm == "fixed" else 0
    school.set_fields(config, regime.arms[name.arm])
    return config


def start(name: Name) -> Name | None:
    """Returns the run that a run starts from."""
    regime = REGIMES.get(name.regime)
    return school.start(name, regime.base if regime else "")


def arms() -> dict[str, list[str]]:
    """Returns the arms of every regime, with what they start from."""
    return school.arms(REGIMES)


def names() -> list[Name]:
    """Returns the runs that are compared."""
    return school.names(REGIMES)
