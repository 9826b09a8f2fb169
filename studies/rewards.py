"""Does the cosine reward shorten, and what does the one that Open-RS shipped do?

    make study-rewards
    python -m studies.run rewards --only=solvable/cosine/0    # one run, and its base

A run is REGIME/ARM/SEED. Its arm says what a completion is worth; arms of one regime
and seed start from one base and see the same problems in the same order.
`studies/school.py` says how bases are made.
"""

import dataclasses

from configs import quickstart
from grpo_jax import choices
from grpo_jax.config import TrainConfig
from studies import school
from studies.study import Name

LIMIT_TOKENS = 192
# Open-RS compared 3584 tokens, its limit, with characters, of which a token has about
# three: its wave was at its lowest after a third of the limit, and at its highest again
# after two. A third of the limit here, at one character a token and 28 more in tags:
WAVE_CHARACTERS = 73
# Weights of Open-RS; accuracy is always watched.
_ACCURACY = {"reward.weights": {"accuracy": 2.0, "format": 1.0}}
_COSINE = {"reward.weights": {"accuracy": 0.0, "cosine": 2.0, "format": 1.0}}
_LEGACY = {
    "reward.weights": {"accuracy": 0.0, "legacy_open_rs_cosine": 2.0, "format": 1.0},
    "reward.cosine.max_tokens": WAVE_CHARACTERS,
}
_QUICKSTART = {"reward.weights": {"accuracy": 1.0, "format": 0.1}}
# Two ways to take the push on length out of groups in which all are wrong.
_RIGHT_ONLY = _COSINE | {"reward.cosine.wrong_long": -1.0}
_UNSCALED = _COSINE | {"objective.advantage": choices.Advantage.GROUP_MEAN}
_ARMS = {
    "accuracy": _ACCURACY,
    "cosine": _COSINE,
    "legacy": _LEGACY,
    "quickstart": _QUICKSTART,
}


@dataclasses.dataclass(frozen=True)
class Regime(school.Regime):
    """Where rewards are compared.

    Attributes:
      task: where demonstrations come from.
      mistakes: in demonstrations.
      base_steps: supervised steps of the base, after school.
    """

    task: str = ""
    mistakes: float = 0.0
    base_steps: int = 150


REGIMES = {
    "solvable": Regime(
        "the base is often right, and long",
        seeds=3,
        arms=_ARMS,
        task="studies.tasks:rambling",
        mistakes=0.1,
    ),
    "steady": Regime(
        "the same, with bases that go wrong when long only little more",
        seeds=3,
        arms={name: _ARMS[name] for name in ("accuracy", "cosine", "legacy")},
        task="studies.tasks:rambling",
        mistakes=0.1,
        base_steps=600,
    ),
    "hard": Regime(
        "the base is mostly wrong, and short",
        seeds=3,
        arms=_ARMS | {"cosine_right": _RIGHT_ONLY, "cosine_unscaled": _UNSCALED},
        task="studies.tasks:terse",
        mistakes=0.6,
    ),
}


def get_config(run: str = "solvable/cosine/0") -> TrainConfig:
    """Returns the configuration of a run; its `policy.path` is the default place."""
    name = Name.parse(run, arms())
    config = quickstart.get_config()
    config.seed = name.seed
    if before := start(name):
        config.policy.path = f"runs/study_rewards/{before}/model"
    config.evaluation.test_problems = 256
    config.evaluation.every_steps = 0
    if name.regime == school.SCHOOL:
        school.set_lesson(config, name.arm)
        return config
    regime = REGIMES[name.regime]
    config.task.name = regime.task
    config.task.arithmetic.mistake_fraction = regime.mistakes
    config.rollout.max_completion_tokens = LIMIT_TOKENS
    if name.arm == school.BASE:
        config.warm_start.steps = regime.base_steps
        config.warm_start.batch_size = 32
        config.warm_start.optimizer.learning_rate = 5e-4
        config.trainer.steps = 0
        return config
    config.warm_start.steps = 0
    config.trainer.steps = 40
    config.rollout.prompts_per_step = 16
    school.set_fields(config, regime.arms[name.arm])
    return config


def start(name: Name) -> Name | None:
    """Returns the run that a run starts from; three steps need no lesson before."""
    return None if name.arm == school.STEPS else school.start(name)


def arms() -> dict[str, list[str]]:
    """Returns the arms of every regime, with what they start from."""
    return school.arms(REGIMES)


def names() -> list[Name]:
    """Returns the runs that are compared."""
    return school.names(REGIMES)
