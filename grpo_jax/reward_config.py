"""The rewards of a run and their parameters: `config.reward`.

What each reward computes is in `grpo_jax/rewards`; docs/rewards.md has them in a table.
"""

import dataclasses

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, fraction, positive


@dataclasses.dataclass
class CosineConfig(Section):
    """The "cosine" reward: from the short value to the long one over the length."""

    # Where the long values are reached. 0: at the limit of the completion, which is
    # config.rollout.max_completion_tokens or lower in an early stage.
    max_tokens: int = 0
    correct_short: float = 1.0  # no tokens, right
    correct_long: float = 0.5  # max_tokens and beyond, right
    wrong_short: float = -1.0  # no tokens, wrong
    wrong_long: float = -0.5  # max_tokens and beyond, wrong

    def validate(self, path: str):
        """No wrong completion may be worth as much as a correct one."""
        at_least(path, self, max_tokens=0)
        correct = min(self.correct_short, self.correct_long)
        wrong = max(self.wrong_short, self.wrong_long)
        if wrong >= correct:
            raise ValueError(
                f"{path}.wrong_short and wrong_long are {self.wrong_short} and "
                f"{self.wrong_long}: both must be below {path}.correct_short and "
                f"correct_long, {self.correct_short} and {self.correct_long}"
            )


@dataclasses.dataclass
class RepetitionConfig(Section):
    """The "repetition_penalty" reward."""

    ngram: int = 3  # words that repeat together
    penalty: float = -1.0  # approached where everything repeats

    def validate(self, path: str):
        """A penalty is not a bonus."""
        at_least(path, self, ngram=1)
        if self.penalty > 0:
            raise ValueError(f"{path}.penalty is {self.penalty}: use 0 or less")


@dataclasses.dataclass
class OverlongConfig(Section):
    """The "soft_overlong" reward: it falls from 0 to -1 at the end of the length."""

    # Where -1 is reached. 0: at the limit of the completion.
    max_tokens: int = 0
    # Over how many tokens before that it falls. 0: a quarter of them.
    buffer_tokens: int = 0

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, max_tokens=0, buffer_tokens=0)


@dataclasses.dataclass
class LanguageConfig(Section):
    """The "language" reward."""

    # What letters should be of. A script is not a language: French passes as Latin.
    script: choices.Script = choices.Script.LATIN


@dataclasses.dataclass
class SearchRewardConfig(Section):
    """The rewards of search agents: "david" and "search_format"."""

    # Of "david", what the share of gold documents found counts; the answer, the rest.
    evidence_weight: float = 0.5
    # What an answer is worth in "david".
    answer: choices.AnswerScore = choices.AnswerScore.EXACT
    # Episodes that never search are worth nothing in both.
    require_search: bool = True

    def validate(self, path: str):
        """Checks ranges."""
        fraction(path, self, "evidence_weight")


@dataclasses.dataclass
class RewardConfig(Section):
    """What a completion is worth: a weighted sum of named rewards."""

    # Name of a built-in reward, or "package.module:function", to its weight.
    weights: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"accuracy": 1.0, "format": 0.1}
    )
    cosine: CosineConfig = dataclasses.field(default_factory=CosineConfig)
    repetition: RepetitionConfig = dataclasses.field(default_factory=RepetitionConfig)
    overlong: OverlongConfig = dataclasses.field(default_factory=OverlongConfig)
    language: LanguageConfig = dataclasses.field(default_factory=LanguageConfig)
    search: SearchRewardConfig = dataclasses.field(default_factory=SearchRewardConfig)
    # Processes that check completions, and what one check may use. For "code" that is
    # one test; all tests of a program together may take six times as long.
    workers: int = 2
    check_seconds: float = 5.0
    batch_seconds: float = 60.0
    check_memory_mb: int = 2048

    def validate(self, path: str):
        """At least one reward must count."""
        at_least(path, self, workers=1, check_memory_mb=64)
        positive(path, self, "check_seconds", "batch_seconds")
        if not any(self.weights.values()):
            raise ValueError(f"{path}.weights is {self.weights}: no reward has weight")
