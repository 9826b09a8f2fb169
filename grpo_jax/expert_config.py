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
    # What the loss does with the tokens that the expert wrote. For loss=importance the
    # file of config.task.experts_path is one that grpo_jax.score_experts wrote.
    loss: choices.ExpertLoss = choices.ExpertLoss.ON_POLICY
    # For loss=off_policy: the probability at which imitation pulls hardest.
    shaping_gamma: float = 0.1
    # Experts that are known: those of the first questions that have one. 0: all.
    most: int = 0
    # Show experts what the run's own environment replies to their queries, in place of
    # what they were shown when they wrote.
    replay: bool = False

    def validate(self, path: str):
        """Checks ranges; log-probs hold for what an expert was shown, and no other."""
        at_least(path, self, below=0, reward=0, most=0)
        positive(path, self, "shaping_gamma")
        if self.replay and self.loss is choices.ExpertLoss.IMPORTANCE:
            raise ValueError(
                f"{path}.replay is True and {path}.loss is importance: the log-probs "
                "of an expert are of what it wrote behind other documents; leave one "
                "of them out"
            )
