r"""David-GRPO (arXiv 2601.21699): agents that search, several hops deep.

    python -m grpo_jax.train --config=configs/david_grpo.py:miniature --workdir=runs/a

`miniature` needs nothing but a CPU: a world of made-up people, towns and firms, each
with a document, and questions that need one to three of them. `warmup` and `train` are
the two stages of the paper, from a base model and files of HotpotQA:

    python -m grpo_jax.train --config=configs/david_grpo.py:warmup --workdir=runs/warmup
    python -m grpo_jax.export --workdir=runs/warmup --output=models/warmup
    python -m grpo_jax.train --config=configs/david_grpo.py:train --workdir=runs/david \
        --config.policy.path=models/warmup

docs/search_tasks.md says where the files come from and what the stages would cost.
Neither has been run at its size.

`budget` is `miniature` with costs, a weight of them that follows a target, and a number
of calls that grows (docs/budget.md).
"""

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.budget_config import BudgetConfig
from grpo_jax.episode_config import EpisodeConfig
from grpo_jax.expansion_config import ExpansionConfig
from grpo_jax.expert_config import ExpertsConfig
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.task_config import WorldConfig


def get_config(name: str = "miniature") -> c.TrainConfig:
    """Returns the configuration of that name."""
    configs = {
        "miniature": miniature,
        "budget": budget,
        "warmup": warmup,
        "train": train,
    }
    if name not in configs:
        raise ValueError(f"there is no {name!r}: use one of {list(configs)}")
    return configs[name]()


def miniature() -> c.TrainConfig:
    """One to three hops in the built-in world, after demonstrations that stop early."""
    return c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature-agent",
            tokenizer="search-words",
            dtype=choices.Dtype.FLOAT32,
            remat=choices.Remat.NONE,
        ),
        task=c.TaskConfig(
            name="world",
            tags=choices.Tags.COMPACT,
            world=WorldConfig(
                train_questions=2500,
                early_stop_fraction=0.6,
                needless_call_fraction=0.2,
            ),
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=16,
            group_size=8,
            max_prompt_tokens=16,
            max_completion_tokens=128,
            chunk_steps=8,
        ),
        episode=EpisodeConfig(environment="search", max_calls=4, turn_tokens=24),
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
            demonstrations=2500,
            optimizer=c.OptimizerConfig(
                learning_rate=3e-3,
                beta2=0.98,
                schedule=choices.Schedule.COSINE,
                warmup_steps=20,
            ),
        ),
        trainer=c.TrainerConfig(steps=40),
        evaluation=c.EvaluationConfig(
            every_steps=20, samples=2, validation_problems=64, test_problems=256
        ),
        checkpoint=c.CheckpointConfig(every_steps=20),
    )


def budget() -> c.TrainConfig:
    """`miniature`, in which right answers are worth less the more they cost."""
    config = miniature()
    config.budget = BudgetConfig(
        call_cost=1.0,
        document_cost=1.0,
        token_cost=1.0,
        # A call for each gold document, and about what those and the thoughts take.
        free_by_evidence=True,
        free_cost=0.5,
        right_reward="exact_match",
        initial_beta=0.1,
        max_cost=2.0,
        # Questions need 2 documents in the mean.
        beta_rate=0.02,
        target_cost=2.5,
        # A right answer adds 0.5 to `david`: less than half of that.
        max_beta=0.2,
        first_calls=3,
        call_every_steps=10,
        near_duplicate=0.9,
        redundancy_penalty=0.05,
        probe_tokens=16,
    )
    # Saving on everything is how it goes wrong.
    config.monitor.warn_above["episode/no_call_fraction"] = 0.5
    return config


def warmup() -> c.TrainConfig:
    """Stage 1: four questions, and what an expert did where the policy does not do."""
    config = _published()
    # Its rows have both: supporting titles, and the expert's `gold_response`.
    config.task.train_path = "data/david/warmup.parquet"
    config.task.experts_path = "data/david/warmup.parquet"
    config.experts = ExpertsConfig(below=1.0, reward=1.0)
    config.rollout.prompts_per_step = 4
    config.episode.max_calls = 5
    config.optimizer.learning_rate = 1e-5
    config.trainer.steps = 50
    config.checkpoint = c.CheckpointConfig(every_steps=10, keep_last=5, best_metric="")
    return config


def train() -> c.TrainConfig:
    """Stage 2: an epoch of other questions, from the model that stage 1 has made."""
    config = _published()
    config.policy.path = "models/warmup"
    config.task.train_path = "data/david/train.parquet"
    config.task.validation_path = "data/david/dev.parquet"
    config.rollout.prompts_per_step = 24
    config.episode.max_calls = 10
    # Published: what a continuation shares with its row is trained in both.
    config.expansion = ExpansionConfig(continuations=5, mask_prefix=False)
    config.objective.kl_coef = 0.001
    # The corrected code; its first release differentiated k1, whose expected gradient
    # is zero.
    config.objective.divergence = choices.Divergence.K2
    config.trainer.steps = 215
    config.trainer.minibatches = 2  # 12 questions an update
    config.evaluation.every_steps = 10
    config.evaluation.validation_problems = 200
    config.checkpoint = c.CheckpointConfig(every_steps=10)
    return config


def _published() -> c.TrainConfig:
    """What the stages share: the corrected code, less its entropy bonus of 0.001."""
    return c.TrainConfig(
        policy=c.PolicyConfig(path="Qwen/Qwen2.5-1.5B"),
        task=c.TaskConfig(
            name="multihop",
            tags=choices.Tags.DAVID,
            instructions=True,
            use_chat_template=True,
        ),
        rollout=c.RolloutConfig(
            group_size=5,
            max_prompt_tokens=1024,
            max_completion_tokens=8192,
            sampling=c.SamplingConfig(temperature=0.6),
            order=choices.Order.FILE,
            chunk_steps=64,
        ),
        # Published are 2048 tokens for the first turn, 1024 for those after a search
        # and 2048 once no search is left; here every turn has the most.
        episode=EpisodeConfig(environment="search", turn_tokens=2048),
        retrieval=RetrievalConfig(corpus_path="data/david/corpus.jsonl", top_k=3),
        # What its code computes, faults included (docs/search_tasks.md), is
        # --config.reward.weights='{"legacy_david": 1.0}'.
        reward=c.RewardConfig(
            weights={
                "david": 1.0,
                "exact_match": 0.0,
                "evidence_recall": 0.0,
                "search_format": 0.0,
            }
        ),
        objective=c.ObjectiveConfig(
            loss=choices.Loss.GRPO,  # means over tokens, completions and questions
            advantage_epsilon=1e-6,
        ),
        optimizer=c.OptimizerConfig(learning_rate=1e-6, weight_decay=0.01),
        # Published is one completion a problem, which is noisy.
        evaluation=c.EvaluationConfig(
            samples=4, sampling=c.SamplingConfig(temperature=0.6)
        ),
        mesh=c.MeshConfig(fsdp=4),
    )
