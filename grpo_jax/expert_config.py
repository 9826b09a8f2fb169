"""Trajectories of experts in groups that do badly: `config.experts`."""

import dataclasses

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, positive


@dataclasses.dataclass
class ExpertsConfig(Section):
    """Expert seeding, as in David-GRPO: one of a group's rows becomes an expert's."""

    # A group whose best reward is below this gets what an expert did in place of its
    # worst row, if the task knows of any. 0: none does.
    below: float = 0.0
    # What it is worth. 0: what the rewards of the run say of it.
    reward: float = 1.0
    # What the loss does with the tokens that the expert wrote.
    loss: choices.ExpertLoss = choices.ExpertLoss.ON_POLICY
    # For loss=off_policy: the probability at which imitation pulls hardest.
    shaping_gamma: float = 0.1

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, below=0, reward=0)
        positive(path, self, "shaping_gamma")
