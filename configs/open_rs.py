r"""Open-RS (arXiv 2503.16219): GRPO for DeepSeek-R1-Distill-Qwen-1.5B.

    python -m grpo_jax.train --config=configs/open_rs.py:ours --workdir=runs/open_rs \
        --config.task.train_path=data/curated/data.jsonl
    python -m grpo_jax.train --config=configs/open_rs.py:rs3 --workdir=runs/rs3

`rs1`, `rs2` and `rs3` are the published experiments as their program ran them, with the
rewards it computed and the temperature at which it took log-probs; docs/open_rs.md says
what is wrong with these. `ours` is what we would run instead: it takes what
`grpo_jax.curate` writes. None has been run at its size: prices and hours in
docs/open_rs.md are estimates of `grpo_jax.plan`.

The wording of the prompts is ours. The published one asks for the same.
"""

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.monitor_config import MonitorConfig
from grpo_jax.reward_config import CosineConfig
from grpo_jax.rollout_config import StagesConfig

_BASE = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
_TAGS = (
    "You are asked a question by a user. First reason about it between <think> and "
    "</think>, then answer between <answer> and </answer>, with the final answer in "
    "\\boxed{}."
)
_ENGLISH = " Write in English and in no other language."
_QUESTION = (
    "{question}\n\nReason step by step and give the final answer in \\boxed{} on the "
    "last line."
)


def get_config(name: str = "ours") -> c.TrainConfig:
    """Returns the configuration called `rs1`, `rs2`, `rs3` or `ours`."""
    configs = {"rs1": rs1, "rs2": rs2, "rs3": rs3, "ours": ours}
    if name not in configs:
        raise ValueError(f"there is no {name!r}: use one of {list(configs)}")
    return configs[name]()


def rs1() -> c.TrainConfig:
    """Experiment 1: hard problems, accuracy. Its step 100 was released as RS1."""
    config = _published(weights={"open_rs_format": 1.0, "legacy_open_rs_accuracy": 2.0})
    config.task.train_path = "hub:knoveleng/open-s1:train"
    config.rollout.max_completion_tokens = 4096
    return config


def rs2() -> c.TrainConfig:
    """Experiment 2: easy and hard problems. Its step 50 was released as RS2."""
    return _published(weights={"open_rs_format": 1.0, "legacy_open_rs_accuracy": 2.0})


def rs3() -> c.TrainConfig:
    """Experiment 3: as 2, with the cosine reward. Its step 50 was released as RS3."""
    config = _published(weights={"open_rs_format": 1.0, "legacy_open_rs_cosine": 2.0})
    config.reward.cosine = CosineConfig(max_tokens=3584)  # of characters, that is
    config.task.system_prompt = _TAGS + _ENGLISH
    return config


def _published(weights: dict[str, float]) -> c.TrainConfig:
    """What the three experiments share: 12 prompts a step, 6 completions of each."""
    return c.TrainConfig(
        seed=42,
        policy=c.PolicyConfig(path=_BASE),
        task=c.TaskConfig(
            name="math",
            train_path="hub:knoveleng/open-rs:train",
            question_column="problem",
            reference_column="solution",
            system_prompt=_TAGS,
            use_chat_template=True,
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=12,  # 3 devices x 6 rows x 4 accumulations / 6
            group_size=6,
            max_prompt_tokens=512,
            max_completion_tokens=3584,
            sampling=c.SamplingConfig(temperature=0.7),
            chunk_steps=64,
        ),
        # What only watches has no weight: what the program could not tell apart.
        reward=c.RewardConfig(
            weights={**weights, "accuracy": 0.0, "language": 0.0}, workers=8
        ),
        objective=c.ObjectiveConfig(
            loss=choices.Loss.BNPO,
            aggregation=choices.Aggregation.GROUP_TOKEN_MEAN,  # one group a device
            kl_coef=0.04,  # the default of its library
            temperature=1.0,  # sampled at 0.7
        ),
        optimizer=c.OptimizerConfig(
            learning_rate=1e-6,
            schedule=choices.Schedule.COSINE,
            warmup_steps=50,
            final_fraction=0.1,
        ),
        trainer=c.TrainerConfig(steps=500),
        evaluation=c.EvaluationConfig(
            samples=1,
            greedy=False,
            sampling=c.SamplingConfig(temperature=0.6, top_p=0.95),
            max_completion_tokens=32_768,
        ),
        checkpoint=c.CheckpointConfig(every_steps=50, keep_last=10, best_metric=""),
        mesh=c.MeshConfig(fsdp=4),
    )


def ours() -> c.TrainConfig:
    """The same base on curated problems, without what went wrong."""
    return c.TrainConfig(
        policy=c.PolicyConfig(path=_BASE),
        task=c.TaskConfig(
            name="math",
            train_path="data/curated/data.jsonl",
            solution_column="",
            validation_rows=128,
            prompt_template=_QUESTION,
            use_chat_template=True,
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=32,
            group_size=8,
            max_prompt_tokens=512,
            max_completion_tokens=8192,
            # The base needs 4k tokens (MATH) to 14k (AIME): begin where most fit.
            stages=StagesConfig(
                initial_tokens=4096, truncated_fraction=0.25, every_steps=100
            ),
            sampling=c.SamplingConfig(temperature=0.9),
            zero_variance=choices.ZeroVariance.REFILL,
            max_refills=1.0,
            chunk_steps=64,
        ),
        reward=c.RewardConfig(
            weights={
                "cosine": 1.0,  # in tokens, short and right above all
                "format": 0.1,  # a closed box after the thoughts
                "language": 0.1,  # from the first step on
                "accuracy": 0.0,  # decides which groups teach
                "repetition_penalty": 0.0,
            },
            workers=8,
        ),
        objective=c.ObjectiveConfig(
            loss=choices.Loss.DAPO,
            clip_high=0.28,
            mask_truncated=True,
        ),
        optimizer=c.OptimizerConfig(learning_rate=1e-6, warmup_steps=10),
        trainer=c.TrainerConfig(steps=300),
        evaluation=c.EvaluationConfig(
            every_steps=20,
            samples=8,
            greedy=False,
            sampling=c.SamplingConfig(temperature=0.6, top_p=0.95),
            max_completion_tokens=8192,
            patience=5,
        ),
        checkpoint=c.CheckpointConfig(
            every_steps=20, best_rule=choices.Best.ONE_STANDARD_ERROR
        ),
        # Where nothing that follows could be of use.
        monitor=MonitorConfig(
            stop_above={"rollout/repeated_fraction": 0.8},
            stop_below={"rollout/script_fraction": 0.7},
        ),
        mesh=c.MeshConfig(fsdp=4),
    )
