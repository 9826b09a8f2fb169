"""A model with its task: everything of a run that does not change while it runs."""

import dataclasses

from jax.sharding import Mesh

from grpo_jax.config import TrainConfig
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import RewardFunction
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.load import load_task
from grpo_jax.trainer.model import Model, build_model
from grpo_jax.trainer.step import Scorer


@dataclasses.dataclass(frozen=True)
class Run:
    """What a configuration names, built and checked.

    Attributes:
      config: sealed.
      model: the policy's shape, tokenizer and starting weights.
      task: questions and rewards.
      rewards: the configured ones, with their weights.
    """

    config: TrainConfig
    model: Model
    task: Task
    rewards: dict[str, tuple[float, RewardFunction]]

    def scorer(self) -> Scorer:
        """Returns what computes log-probs of rollouts."""
        config = self.config
        return Scorer(
            arch=self.model.arch,
            dtype=config.policy.dtype,
            remat=config.policy.remat,
            temperature=config.rollout.sampling.temperature,
            completion_columns=config.rollout.max_completion_tokens,
            chunk_tokens=config.trainer.logits_chunk_tokens,
            micro_batch_rows=config.trainer.micro_batch_rows,
        )

    def close(self) -> None:
        """Ends the processes of the task's rewards."""
        self.task.close()


def build(config: TrainConfig) -> Run:
    """Builds what a sealed configuration names, cheapest checks first.

    Raises:
      ValueError: a mesh, model, task or reward that cannot be.
      FileNotFoundError: a path that does not exist.
    """
    model = build_model(config)
    _check_rows(config, model.mesh)
    task = load_task(config.task, config.reward)
    rewards = {
        name: (weight, scoring.load_reward(name, task.rewards))
        for name, weight in config.reward.weights.items()
    }
    return Run(config, model, task, rewards)


def _check_rows(config: TrainConfig, mesh: Mesh) -> None:
    """Every batch of rows must split evenly over the devices."""
    split = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = config.rollout.prompts_per_step * config.rollout.group_size
    update = rows // config.trainer.minibatches
    for name, count in (
        ("config.rollout.prompts_per_step x group_size", rows),
        ("config.rollout.max_rows", config.rollout.max_rows),
        ("rows of an update (config.trainer.minibatches)", update),
        ("config.trainer.micro_batch_rows", config.trainer.micro_batch_rows),
        ("config.warm_start.batch_size", config.warm_start.batch_size),
        ("config.warm_start.micro_batch_rows", config.warm_start.micro_batch_rows),
    ):
        if count % split:
            raise ValueError(
                f"{name} is {count}: config.mesh.data x config.mesh.fsdp, {split}, "
                "must divide it"
            )
