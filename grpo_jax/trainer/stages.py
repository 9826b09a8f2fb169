"""The limit of completions while a run goes through its stages.

A policy that writes longer than the limit is cut, and what is cut teaches little; one
that is given much room from the start is slow. So the limit begins low and is raised.
"""

from collections.abc import Mapping
from typing import Any

from grpo_jax.config import RolloutConfig
from grpo_jax.reporting import terminal


class Stages:
    """Says how long completions may be, and raises it.

    Attributes:
      limit: tokens of a completion, at present.
    """

    def __init__(self, config: RolloutConfig):
        """Starts in the first stage, which may be the only one."""
        self._config = config
        self.limit = config.stages.initial_tokens or config.max_completion_tokens
        self._truncated: list[float] = []  # of every step of this stage

    def observe(self, truncated_fraction: float) -> dict[str, float]:
        """Takes in how many completions of a step were cut; returns its metrics."""
        metrics = {"rollout/limit_tokens": float(self.limit)}
        most = self._config.max_completion_tokens
        if self.limit < most:
            self._truncated.append(truncated_fraction)
            if self._ends:
                self.limit = min(round(self.limit * self._config.stages.factor), most)
                self._truncated = []
                terminal.say(f"completions may have {self.limit} tokens from now on")
        return metrics

    @property
    def _ends(self) -> bool:
        stages, steps = self._config.stages, len(self._truncated)
        if stages.every_steps and steps >= stages.every_steps:
            return True
        if not stages.truncated_fraction or steps < stages.window:
            return False
        recent = self._truncated[-stages.window :]
        return sum(recent) / len(recent) >= stages.truncated_fraction

    def get_state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold; JSON can."""
        return {"limit": self.limit, "truncated": list(self._truncated)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on as the one that returned `state`."""
        self.limit, self._truncated = state["limit"], list(state["truncated"])
