"""Where a run stands besides its weights: all that a checkpoint holds of it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from grpo_jax.data.mixed_prompts import MixedStream
from grpo_jax.data.pipeline import PromptStream
from grpo_jax.trainer.budget_control import Budget
from grpo_jax.trainer.guidance import Guide
from grpo_jax.trainer.metrics import StepTimer
from grpo_jax.trainer.run import Run
from grpo_jax.trainer.stages import Stages


@dataclasses.dataclass
class Position:
    """What moves as a run goes on.

    Attributes:
      stream: the prompts to come.
      stages: how long completions may be.
      guide: what guided rows get; None without guidance.
      budget: what completions pay for what they cost; None where nothing is measured.
      timer: seconds by phase.
      generated_tokens: so far.
      validations: the best metric of every validation so far.
      tripwires: what they have counted, as `Tripwires.get_state` gives it.
    """

    stream: PromptStream | MixedStream
    stages: Stages
    guide: Guide | None
    budget: Budget | None = None
    timer: StepTimer = dataclasses.field(default_factory=StepTimer)
    generated_tokens: int = 0
    validations: list[float] = dataclasses.field(default_factory=list)
    tripwires: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def start(cls, run: Run) -> "Position":
        """Returns where a run begins.

        Raises:
          ValueError: too few prompts, or a guidance or a budget that cannot be.
        """
        config = run.config
        draw = PromptStream
        if config.rollout.easy_fraction:
            draw = functools.partial(
                MixedStream,
                easy_fraction=config.rollout.easy_fraction,
                easy_hops=config.rollout.easy_hops,
            )
        stream = draw(
            run.task.train,
            run.model.tokenizer,
            prompts_per_step=config.rollout.prompts_per_step,
            order=config.rollout.order,
            seed=config.seed,
            **run.model.prompt_options,
        )
        guide = None
        if config.guidance.fraction:
            guide = Guide(config, run.model.tokenizer, run.model.arch.vocab_size)
        budget = None
        if config.budget.is_on:
            budget = Budget(config, run.task.train)
        return cls(stream, Stages(config.rollout), guide, budget)

    def stalled(self, patience: int) -> bool:
        """Whether the last `patience` validations did not raise the best one."""
        if not patience or not self.validations:
            return False
        best = self.validations.index(max(self.validations))
        return len(self.validations) - 1 - best >= patience

    def spent(self, max_generated_tokens: int) -> bool:
        """Whether the policy has written all that it may; 0 is no limit."""
        return 0 < max_generated_tokens <= self.generated_tokens

    def get_state(self) -> dict[str, Any]:
        """Returns what JSON can hold of it."""
        return {
            "stream": self.stream.get_state(),
            "stages": self.stages.get_state(),
            "guidance": self.guide.get_state() if self.guide else None,
            "budget": self.budget.get_state() if self.budget else None,
            "seconds": dict(self.timer.totals),
            "generated_tokens": self.generated_tokens,
            "validations": list(self.validations),
            "tripwires": self.tripwires,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state` was taken.

        Raises:
          ValueError: other prompts, another batch size or seed.
        """
        self.stream.set_state(state["stream"])
        self.stages.set_state(state["stages"])
        if self.guide:
            self.guide.set_state(state["guidance"])
        if self.budget:
            self.budget.set_state(state["budget"])
        self.timer.totals = dict(state["seconds"])
        self.generated_tokens = state["generated_tokens"]
        self.validations = list(state["validations"])
        self.tripwires = state["tripwires"]
