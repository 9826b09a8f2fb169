"""What part of every group starts from an expert's trace: `config.guidance`."""

import dataclasses

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, fraction, positive


@dataclasses.dataclass
class GuidanceConfig(Section):
    """Part of each group starts from the beginning of an expert's trace (G2RPO-A).

    The trace of a problem is its worked solution. Lengths are tokens.
    """

    # Of each group, rounded up to whole rows. 0: no guidance.
    fraction: float = 0.0
    # What the loss does with guidance tokens.
    loss: choices.GuidanceLoss = choices.GuidanceLoss.MASK
    # For loss=off_policy: the probability at which imitation pulls hardest.
    shaping_gamma: float = 0.1
    # What moves the length, from `initial` on.
    length: choices.GuidanceLength = choices.GuidanceLength.ADDITIVE
    initial: int = 512
    # Bounds of the rules that follow the reward, and where schedules end.
    minimum: int = 16
    maximum: int = 3072
    final: int = 0
    # Rewards that additive and multiplicative average over.
    window: int = 4
    delta: int = 64  # additive: tokens up or down in a step
    tie: choices.Tie = choices.Tie.INCREASE
    on_zero: choices.OnZero = choices.OnZero.INCREASE
    # Most that multiplicative and cycle multiply or divide by in a step. 0: no limit.
    max_ratio: float = 2.0
    literal: bool = False  # multiplicative moves with the reward, as it was printed
    power: float = 0.5  # of concave
    factor: float = 0.5  # stepwise: times this, every `interval` steps
    interval: int = 10
    # The reward that adaptive lengths follow, and of which completions.
    signal_reward: str = "accuracy"
    signal_rows: choices.SignalRows = choices.SignalRows.UNGUIDED
    # Most of a trace that may be given; what states the answer never is.
    max_trace_fraction: float = 0.9
    # Begin traces with <think> where neither they nor the prompt do.
    open_thinking: bool = False
    # Shorten the length of a prompt by its own recent pass rate.
    per_prompt: bool = False
    # Guide only groups whose unguided completions all have a signal of 0.
    only_failing: bool = False
    # Part of the steps over which lengths fall to 0 at the end.
    anneal_fraction: float = 0.0
    # Training prompts of which the starting policy completes one row after each of
    # seven guidance lengths, to see whether guidance helps. 0: none.
    ladder_prompts: int = 32

    def validate(self, path: str):
        """Checks ranges; those of the length rule are checked when it is made."""
        for name in ("fraction", "max_trace_fraction", "anneal_fraction"):
            fraction(path, self, name)
        positive(path, self, "shaping_gamma")
        at_least(path, self, initial=0, minimum=0, maximum=1, final=0)
        at_least(path, self, ladder_prompts=0)
        if self.fraction and not self.signal_reward:
            raise ValueError(f"{path}.signal_reward is empty: name a reward")
