"""The typed configuration of a run: plain dataclasses, validated and then sealed.

A file in `configs/` builds a `TrainConfig`; the command line overrides any field as
`--config.section.field=value`; `seal()` checks everything, once, before anything is
built, and forbids assignment from then on. Off is spelled 0 or "", never None.
"""

import dataclasses

from grpo_jax import choices
from grpo_jax.budget_config import BudgetConfig
from grpo_jax.episode_config import EpisodeConfig
from grpo_jax.expansion_config import ExpansionConfig
from grpo_jax.expert_config import ExpertsConfig
from grpo_jax.guidance_config import GuidanceConfig
from grpo_jax.monitor_config import MonitorConfig
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.reward_config import RewardConfig
from grpo_jax.rollout_config import RolloutConfig, SamplingConfig
from grpo_jax.sections import Section, at_least, divides, fraction, positive
from grpo_jax.task_config import TaskConfig


@dataclasses.dataclass
class PolicyConfig(Section):
    """Which model is trained."""

    # A Hugging Face directory or hub id. Empty: random weights of `preset`.
    path: str = ""
    preset: str = "miniature"
    # Directory or hub id of the tokenizer. Empty: the one of `path`.
    # "characters": the built-in character tokenizer of the arithmetic task;
    # "search-characters": with the tags of searches, "search-words": and the words of
    # the world.
    tokenizer: str = ""
    dtype: choices.Dtype = choices.Dtype.BFLOAT16
    remat: choices.Remat = choices.Remat.FULL
    # How training and scoring attend. auto: the best that the hardware has.
    attention: choices.Attention = choices.Attention.AUTO

    def validate(self, path: str):
        """A model and a tokenizer must both be named."""
        if not self.path and not self.preset:
            raise ValueError(f"{path}.path and {path}.preset are both empty: set one")
        if not self.path and not self.tokenizer:
            raise ValueError(
                f"{path}.tokenizer is empty and {path}.path names no directory to take "
                'one from; set it to a directory, a hub id or "characters"'
            )


@dataclasses.dataclass
class ObjectiveConfig(Section):
    """The policy-gradient loss."""

    loss: choices.Loss = choices.Loss.GRPO
    aggregation: choices.Aggregation = choices.Aggregation.PUBLISHED
    advantage: choices.Advantage = choices.Advantage.GROUP_STD
    advantage_epsilon: float = 1e-4
    # The importance ratio is clipped to [1 - clip_low, 1 + clip_high]. CISPO caps the
    # ratio itself at clip_high (5); the ratios of whole sequences in GSPO and LUSPO
    # want a much narrower range (3e-4, 4e-4).
    clip_low: float = 0.2
    clip_high: float = 0.2
    # Upper bound of the ratio where the advantage is negative. 0 is off.
    dual_clip: float = 0.0
    # Weight of KL(policy || reference). 0: no reference is kept.
    kl_coef: float = 0.0
    divergence: choices.Divergence = choices.Divergence.K3
    # Completions cut by the token limit are left out of the loss.
    mask_truncated: bool = False
    # At which log-probs are taken. 0: that of sampling, at which the completions were
    # drawn; 1 is what TRL did before 2025-03, off the policy that samples.
    temperature: float = 0.0

    def validate(self, path: str):
        """k1 as a loss has zero expected gradient, so it is refused."""
        at_least(path, self, advantage_epsilon=0.0, kl_coef=0.0, temperature=0.0)
        positive(path, self, "clip_low", "clip_high")
        if self.dual_clip and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"{path}.dual_clip is {self.dual_clip}: it bounds the ratio from above "
                f"and must exceed 1 + {path}.clip_high ({self.clip_high}); 0 is off"
            )
        if self.loss is choices.Loss.CISPO and self.clip_high < 1:
            raise ValueError(
                f"{path}.clip_high is {self.clip_high} with {path}.loss=cispo, which "
                "caps the ratio itself and would scale every update down: use a value "
                "above 1, such as 5"
            )
        if self.kl_coef and self.divergence is choices.Divergence.K1:
            raise ValueError(
                f"{path}.divergence is k1: differentiated as a loss its expected "
                f"gradient is zero; use k3 or k2, or set {path}.kl_coef=0"
            )


@dataclasses.dataclass
class OptimizerConfig(Section):
    """AdamW and its learning-rate schedule."""

    learning_rate: float = 1e-6
    schedule: choices.Schedule = choices.Schedule.CONSTANT
    warmup_steps: int = 0
    # Where linear and cosine decay end, as a fraction of `learning_rate`.
    final_fraction: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0  # 0 is off

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, warmup_steps=0, weight_decay=0.0, max_gradient_norm=0.0)
        positive(path, self, "learning_rate", "epsilon")
        fraction(path, self, "final_fraction")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{path}.{name} is {getattr(self, name)}: use a value in [0, 1)"
                )


@dataclasses.dataclass
class WarmStartConfig(Section):
    """Supervised training on worked solutions before GRPO. 0 steps is off."""

    steps: int = 0
    batch_size: int = 64
    # As config.trainer.micro_batch_tokens.
    micro_batch_tokens: int = 0
    # Worked solutions shown, over and over; 0: every training problem.
    demonstrations: int = 0
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-5)
    )

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, steps=0, batch_size=1, demonstrations=0)
        at_least(path, self, micro_batch_tokens=0)


@dataclasses.dataclass
class TrainerConfig(Section):
    """The loop."""

    # 0: the warm start alone.
    steps: int = 100
    # Tokens that the policy may generate in training; the run ends with the step that
    # reaches them. For runs that are compared at equal generation. 0: no limit.
    max_generated_tokens: int = 0
    # Passes over each rollout, and optimizer updates in each pass.
    num_iterations: int = 1
    minibatches: int = 1
    # Token slots in one forward and backward pass; gradients accumulate. 0: as many as
    # are fast on the device and fit its memory.
    micro_batch_tokens: int = 0
    # Positions whose logits exist at one time while log-probs are computed.
    logits_chunk_tokens: int = 1024
    # Updates in a row with a non-finite loss or gradient before the run stops.
    max_nonfinite_updates: int = 3
    # Refuse a run that does not fit the memory by the plan of `grpo_jax.plan`.
    memory_check: bool = True
    # Groups written to rollouts/ at each step. 0: none, -1: all.
    logged_groups: int = -1

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, steps=0, num_iterations=1, minibatches=1)
        at_least(path, self, micro_batch_tokens=0, logits_chunk_tokens=1)
        at_least(path, self, max_nonfinite_updates=1, logged_groups=-1)
        at_least(path, self, max_generated_tokens=0)


@dataclasses.dataclass
class EvaluationConfig(Section):
    """Held-out accuracy, during training on validation and at the end on test."""

    every_steps: int = 0  # 0: only before and after
    samples: int = 4
    greedy: bool = True  # also decode each problem once greedily
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    max_completion_tokens: int = 0  # 0: as in training
    # Problems taken from the front of each split. 0: all.
    validation_problems: int = 0
    test_problems: int = 0
    confidence: float = 0.95
    # Validations in a row that do not raise the best one before the run ends. 0: all
    # steps are taken.
    patience: int = 0

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, every_steps=0, samples=1, max_completion_tokens=0)
        at_least(path, self, validation_problems=0, test_problems=0, patience=0)
        if self.patience and not self.every_steps:
            raise ValueError(
                f"{path}.patience is {self.patience} and {path}.every_steps is 0: "
                "without validations nothing can end the run; set every_steps"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(
                f"{path}.confidence is {self.confidence}: use a value between 0 and "
                "1, such as 0.95"
            )


@dataclasses.dataclass
class CheckpointConfig(Section):
    """When the state is saved, and what is kept."""

    every_steps: int = 50
    keep_last: int = 2
    # Also keep the best checkpoint by this validation metric. "": none.
    best_metric: str = "evaluation/pass@1"
    best_rule: choices.Best = choices.Best.ONE_STANDARD_ERROR

    def validate(self, path: str):
        """Checks ranges, and that only an evaluation decides what is best."""
        at_least(path, self, every_steps=1, keep_last=1)
        if self.best_metric and not self.best_metric.startswith("evaluation/"):
            raise ValueError(
                f"{path}.best_metric is {self.best_metric!r}: use a metric of the "
                "evaluation, such as evaluation/pass@1, or '' for none"
            )


@dataclasses.dataclass
class MeshConfig(Section):
    """How the devices are arranged."""

    data: int = 0  # 0: as many as are left
    fsdp: int = 1
    tensor: int = 1

    def validate(self, path: str):
        """Checks ranges; the device count is checked when the mesh is made."""
        at_least(path, self, data=0, fsdp=1, tensor=1)


@dataclasses.dataclass
class TrainConfig(Section):
    """One run."""

    seed: int = 0
    policy: PolicyConfig = dataclasses.field(default_factory=PolicyConfig)
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    episode: EpisodeConfig = dataclasses.field(default_factory=EpisodeConfig)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    retrieval: RetrievalConfig = dataclasses.field(default_factory=RetrievalConfig)
    reward: RewardConfig = dataclasses.field(default_factory=RewardConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    guidance: GuidanceConfig = dataclasses.field(default_factory=GuidanceConfig)
    experts: ExpertsConfig = dataclasses.field(default_factory=ExpertsConfig)
    expansion: ExpansionConfig = dataclasses.field(default_factory=ExpansionConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    warm_start: WarmStartConfig = dataclasses.field(default_factory=WarmStartConfig)
    trainer: TrainerConfig = dataclasses.field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    monitor: MonitorConfig = dataclasses.field(default_factory=MonitorConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def validate(self, path: str):
        """Rules between sections; each message names both fields."""
        at_least(path, self, seed=0)
        rows = self.rollout.prompts_per_step * self.rollout.group_size
        divides(
            f"{path}.trainer.minibatches",
            self.trainer.minibatches,
            f"{path}.rollout.prompts_per_step x group_size",
            rows,
        )
        if self.objective.aggregation is choices.Aggregation.GROUP_TOKEN_MEAN:
            divides(
                f"{path}.trainer.minibatches, with "
                f"{path}.objective.aggregation=group_token_mean,",
                self.trainer.minibatches,
                f"{path}.rollout.prompts_per_step",
                self.rollout.prompts_per_step,
            )
        keeps_all = self.rollout.zero_variance is choices.ZeroVariance.KEEP
        for name, reward, read in (
            (
                "guidance.signal_reward",
                self.guidance.signal_reward,
                self.guidance.fraction > 0,
            ),
            ("rollout.variance_reward", self.rollout.variance_reward, not keeps_all),
        ):
            if read and reward not in self.reward.weights:
                raise ValueError(
                    f"{path}.{name} is {reward!r}: use one of {path}.reward.weights, "
                    f"{list(self.reward.weights)}; a weight of 0 only watches"
                )
        if self.episode.environment and self.guidance.fraction:
            raise ValueError(
                f"{path}.episode.environment is {self.episode.environment!r} and "
                f"{path}.guidance.fraction {self.guidance.fraction}: guidance does not "
                "go together with episodes yet; set one of them to nothing"
            )
        if self.experts.below and self.guidance.fraction:
            raise ValueError(
                f"{path}.experts.below is {self.experts.below} and "
                f"{path}.guidance.fraction is in use: experts are seeded into the very "
                "groups that it is about; leave one of them out"
            )
        if self.expansion.continuations and not self.episode.environment:
            raise ValueError(
                f"{path}.expansion.continuations is {self.expansion.continuations} and "
                f"{path}.episode.environment is empty: only episodes are continued; "
                "set it to 'search', or the first to 0"
            )
        rollout = self.rollout
        for name, tokens in (
            ("rollout.max_completion_tokens", rollout.max_completion_tokens),
            ("rollout.stages.initial_tokens", rollout.stages.initial_tokens),
            ("evaluation.max_completion_tokens", self.evaluation.max_completion_tokens),
        ):
            self.episode.check_room(f"{path}.episode", f"{path}.{name}", tokens)
        episode, weights = self.episode, self.reward.weights
        self.budget.check_beside(path, episode.environment, episode.max_calls, weights)
        if self.evaluation.patience and not self.checkpoint.best_metric:
            raise ValueError(
                f"{path}.evaluation.patience is {self.evaluation.patience} and "
                f"{path}.checkpoint.best_metric is empty: name the metric to watch"
            )
        buffer = self.reward.overlong.buffer_tokens
        limit = self.reward.overlong.max_tokens or self.rollout.max_completion_tokens
        if buffer > limit:
            raise ValueError(
                f"{path}.reward.overlong.buffer_tokens is {buffer}: use at most "
                f"{path}.reward.overlong.max_tokens, or where that is 0 "
                f"{path}.rollout.max_completion_tokens, which is {limit}"
            )
