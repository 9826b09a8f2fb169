"""How prompts are drawn and completed: `config.rollout`."""

import dataclasses

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, fraction


@dataclasses.dataclass
class SamplingConfig(Section):
    """How tokens are drawn."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0  # 1 is off
    min_p: float = 0.0  # 0 is off

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, temperature=0.0, top_k=0)
        fraction(path, self, "min_p")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"{path}.top_p is {self.top_p}: use a value in (0, 1]")


@dataclasses.dataclass
class StagesConfig(Section):
    """A limit of completions that begins low and is raised.

    Each stage multiplies it by `factor`, up to `max_completion_tokens`: after so many
    steps, or once so many completions were cut by it, whichever comes first.
    """

    initial_tokens: int = 0  # 0: max_completion_tokens from the first step on
    factor: float = 2.0
    every_steps: int = 0  # of a stage, at most. 0: no bound
    # Mean over the last `window` steps of a stage that ends it. 0: no reason.
    truncated_fraction: float = 0.0
    window: int = 8

    def validate(self, path: str):
        """A stage must be able to end."""
        at_least(path, self, initial_tokens=0, every_steps=0, window=1)
        fraction(path, self, "truncated_fraction")
        if self.factor <= 1:
            raise ValueError(f"{path}.factor is {self.factor}: use a value above 1")
        if self.initial_tokens and not (self.every_steps or self.truncated_fraction):
            raise ValueError(
                f"{path}.initial_tokens is {self.initial_tokens} and nothing raises "
                f"it: set {path}.every_steps or {path}.truncated_fraction"
            )


@dataclasses.dataclass
class RolloutConfig(Section):
    """How groups of completions are produced."""

    prompts_per_step: int = 32
    group_size: int = 8
    max_prompt_tokens: int = 512
    max_completion_tokens: int = 1024
    stages: StagesConfig = dataclasses.field(default_factory=StagesConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    order: choices.Order = choices.Order.SHUFFLED
    tier_samples: int = 4  # of every training prompt, for order=pass_rate
    # Share of every step's prompts that are easy, so that what is easy is not lost;
    # they have an order of their own, as above, and so have the others. 0: prompts come
    # as they come.
    easy_fraction: float = 0.0
    # Questions that need at most so many documents (column "hops") are easy.
    easy_hops: int = 1
    # What becomes of a group whose completions all have the same `variance_reward`.
    zero_variance: choices.ZeroVariance = choices.ZeroVariance.KEEP
    variance_reward: str = "accuracy"
    # refill: most prompts that a step draws besides its own, as a multiple of them.
    max_refills: float = 2.0
    # Decode steps between two looks of the host at which rows are done.
    chunk_steps: int = 32
    # Most rows decoded at once; more are taken in waves. 0: all, where memory allows.
    max_rows: int = 0

    def validate(self, path: str):
        """A group needs two rows to have an advantage."""
        at_least(path, self, prompts_per_step=1, group_size=2, max_prompt_tokens=1)
        at_least(path, self, max_completion_tokens=1, chunk_steps=1, max_rows=0)
        at_least(path, self, tier_samples=1, max_refills=0, easy_hops=1)
        if not 0 <= self.easy_fraction < 1:
            raise ValueError(
                f"{path}.easy_fraction is {self.easy_fraction}: use a value from 0 to "
                "below 1"
            )
        if self.stages.initial_tokens > self.max_completion_tokens:
            raise ValueError(
                f"{path}.stages.initial_tokens is {self.stages.initial_tokens}: use at "
                f"most {path}.max_completion_tokens, {self.max_completion_tokens}"
            )
        if self.sampling.temperature == 0:
            raise ValueError(
                f"{path}.sampling.temperature is 0: greedy groups hold one completion "
                f"{self.group_size} times and teach nothing; use a value above 0"
            )
