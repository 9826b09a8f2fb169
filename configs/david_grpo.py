r"""David-GRPO (arXiv 2601.21699): agents that search, several hops deep.

    python -m grpo_jax.train --config=configs/david_grpo.py:miniature --workdir=runs/a

`miniature` needs nothing but a CPU: a world of made-up people, towns and firms, each
with a document, and questions that need one to three of them.
"""

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.episode_config import EpisodeConfig
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.task_config import WorldConfig


def get_config(name: str = "miniature") -> c.TrainConfig:
    """Returns the configuration called `miniature`."""
    configs = {"miniature": miniature}
    if name not in configs:
        raise ValueError(f"there is no {name!r}: use one of {list(configs)}")
    return configs[name]()


def miniature() -> c.TrainConfig:
    """One to three hops in the built-in world, after a few hundred demonstrations."""
    return c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature-agent",
            tokenizer="search-characters",
            dtype=choices.Dtype.FLOAT32,
        ),
        task=c.TaskConfig(
            name="world",
            tags=choices.Tags.COMPACT,
            world=WorldConfig(entities=256, distractors=32, train_questions=1000),
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=16,
            group_size=8,
            max_prompt_tokens=64,
            max_completion_tokens=480,
            chunk_steps=32,
        ),
        episode=EpisodeConfig(environment="search", max_calls=4, turn_tokens=120),
        retrieval=RetrievalConfig(top_k=1),
        reward=c.RewardConfig(
            weights={
                "david": 1.0,
                "exact_match": 0.0,
                "evidence_recall": 0.0,
                "search_format": 0.0,
            }
        ),
        objective=c.ObjectiveConfig(loss=choices.Loss.DAPO),
        optimizer=c.OptimizerConfig(learning_rate=4e-4, beta2=0.98, warmup_steps=5),
        warm_start=c.WarmStartConfig(
            steps=600,
            batch_size=32,
            demonstrations=1000,
            optimizer=c.OptimizerConfig(
                learning_rate=3e-3,
                beta2=0.98,
                schedule=choices.Schedule.COSINE,
                warmup_steps=20,
            ),
        ),
        trainer=c.TrainerConfig(steps=30),
        evaluation=c.EvaluationConfig(
            every_steps=10, samples=2, validation_problems=32, test_problems=64
        ),
        checkpoint=c.CheckpointConfig(every_steps=10),
    )
