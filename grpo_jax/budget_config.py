"""What episodes cost, and what makes a policy spend less: `config.budget`."""

import dataclasses
from collections.abc import Collection

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, fraction, positive

_COSTS = ("call_cost", "document_cost", "token_cost")
# What has no meaning without a cost.
_OF_COSTS = (
    "free_cost",
    "free_by_evidence",
    "initial_beta",
    "beta_rate",
    "target_cost",
)
# What has no meaning without an environment.
_OF_EPISODES = (
    *("call_cost", "document_cost", "first_calls"),
    *("near_duplicate", "redundancy_penalty"),
)


@dataclasses.dataclass
class BudgetConfig(Section):
    """Costs, penalties and caps, each of which is off by default.

    An episode costs `call_cost` a query, `document_cost` for 1000 tokens that it was
    shown and `token_cost` for 1000 that the policy wrote. Costs without a beta are
    only measured. Penalties are taken off the totals of right completions in the
    update, and off nothing else: see docs/budget.md.
    """

    call_cost: float = 0.0
    document_cost: float = 0.0
    token_cost: float = 0.0
    # Rows of a group that ask the same query share the cost of one call, as if it had
    # been kept for the others.
    shared_calls: bool = False
    # What is free; with `free_by_evidence` a call for every gold document as well.
    free_cost: float = 0.0
    free_by_evidence: bool = False
    # Only completions for which this reward is above 0 are charged anything.
    right_reward: str = "accuracy"
    # They are charged beta times a share from 0 to 1: of `max_cost`, or by rank.
    initial_beta: float = 0.0
    penalty: choices.CostPenalty = choices.CostPenalty.COST
    max_cost: float = 1.0
    # After every step beta moves by beta_rate x (mean cost - target_cost), within 0 and
    # `max_beta`, which is to be below what a right answer adds to the total.
    beta_rate: float = 0.0
    target_cost: float = 0.0
    max_beta: float = 0.5
    # Calls of an episode in training: `first_calls`, and one more every so many steps
    # up to config.episode.max_calls. 0: those from the first step on.
    first_calls: int = 0
    call_every_steps: int = 20
    # Share of words in common from which on a query is one that was asked before. 0:
    # none is.
    near_duplicate: float = 0.0
    # For every call that is one, or that brings no new document.
    redundancy_penalty: float = 0.0
    # In evaluations episodes are made to answer after every reply, greedily and in so
    # many tokens at most, which are thrown away again. 0: they are not.
    probe_tokens: int = 0
    # Confidence in that answer, exp(mean log-prob of its tokens), from which on the
    # episode ends with an answer. 0: none does, they are only measured.
    exit_confidence: float = 0.0
    exit_in_training: bool = False
    # Accuracy that the threshold which an evaluation recommends may lose.
    exit_tolerance: float = 0.01

    def validate(self, path: str):
        """Checks ranges, and that nothing is set that has no effect."""
        at_least(path, self, **dict.fromkeys(_COSTS, 0), free_cost=0, max_beta=0)
        at_least(path, self, initial_beta=0, beta_rate=0, target_cost=0, first_calls=0)
        at_least(path, self, call_every_steps=1, redundancy_penalty=0)
        positive(path, self, "max_cost")
        at_least(path, self, probe_tokens=0)
        fraction(path, self, "near_duplicate", "exit_confidence", "exit_tolerance")
        self._check_exits(path)
        for name in _OF_COSTS:
            if getattr(self, name) and not self.measures_costs:
                raise ValueError(
                    f"{path}.{name} is {getattr(self, name)} and nothing has a cost: "
                    f"set {', '.join(f'{path}.{each}' for each in _COSTS)}, or one "
                    "of them"
                )
        for name in ("shared_calls", "free_by_evidence"):
            if getattr(self, name) and not self.call_cost:
                raise ValueError(
                    f"{path}.{name} is True and {path}.call_cost 0: calls are free "
                    f"anyway; set {path}.call_cost"
                )
        if bool(self.beta_rate) != bool(self.target_cost):
            raise ValueError(
                f"{path}.beta_rate is {self.beta_rate} and {path}.target_cost "
                f"{self.target_cost}: set both, or neither for a constant beta"
            )
        if self.initial_beta > self.max_beta:
            raise ValueError(
                f"{path}.initial_beta is {self.initial_beta}: use at most "
                f"{path}.max_beta, {self.max_beta}"
            )

    def _check_exits(self, path: str):
        if self.exit_confidence and not self.probe_tokens:
            raise ValueError(
                f"{path}.exit_confidence is {self.exit_confidence} and "
                f"{path}.probe_tokens 0: nothing measures a confidence; set it to 16"
            )
        if self.exit_in_training and not self.exit_confidence:
            raise ValueError(
                f"{path}.exit_in_training is True and {path}.exit_confidence 0: no "
                "episode ends early; set it to what an evaluation recommends"
            )

    def check_beside(
        self, path: str, environment: str, max_calls: int, rewards: Collection[str]
    ):
        """Checks what depends on other sections.

        Args:
          path: of the whole configuration.
          environment: config.episode.environment.
          max_calls: config.episode.max_calls.
          rewards: names in config.reward.weights.

        Raises:
          ValueError: names both fields.
        """
        for name in _OF_EPISODES:
            if getattr(self, name) and not environment:
                raise ValueError(
                    f"{path}.budget.{name} is {getattr(self, name)} and "
                    f"{path}.episode.environment is empty: no completion asks anything"
                )
        if self.probe_tokens and environment != "search":
            raise ValueError(
                f"{path}.budget.probe_tokens is {self.probe_tokens} and "
                f"{path}.episode.environment is {environment!r}: only episodes of "
                "'search' are known to mark their answers by config.task.tags"
            )
        if self.first_calls > max_calls:
            raise ValueError(
                f"{path}.budget.first_calls is {self.first_calls}: use at most "
                f"{path}.episode.max_calls, {max_calls}"
            )
        if self.charges and self.right_reward not in rewards:
            raise ValueError(
                f"{path}.budget.right_reward is {self.right_reward!r}: use one of "
                f"{path}.reward.weights, {list(rewards)}; a weight of 0 only watches"
            )

    @property
    def measures_costs(self) -> bool:
        """Whether anything has a cost."""
        return any(getattr(self, name) for name in _COSTS)

    @property
    def measures_redundancy(self) -> bool:
        """Whether calls are looked at for what they bring."""
        return bool(self.near_duplicate or self.redundancy_penalty)

    @property
    def charges(self) -> bool:
        """Whether anything is measured of which right completions could be charged."""
        return self.measures_costs or self.measures_redundancy

    @property
    def is_on(self) -> bool:
        """Whether a run differs in anything, be it in what it measures."""
        return self.charges or self.first_calls > 0 or self.exit_in_training
