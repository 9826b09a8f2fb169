r"""G2RPO-A (arXiv 2508.13023): groups that are guided by the beginning of a trace.

    python -m grpo_jax.train --config=configs/g2rpoa.py:miniature --workdir=runs/guided
    python -m grpo_jax.train --config=configs/g2rpoa.py:math --workdir=runs/guided \
        --config.task.train_path=openr1_math.jsonl --config.task.test_path=math500.jsonl
    python -m grpo_jax.train --config=configs/g2rpoa.py:code --workdir=runs/guided \
        --config.task.train_path=code_cot.jsonl --config.task.test_path=held_out.jsonl

`miniature` needs nothing but a CPU. `math` is the paper's setting for a base model on
problems with verified reasoning traces, `code` that of its released program for Python
problems with tests. Where paper and program are silent or disagree with what works,
each value says whose it is. Neither has been run at its size. `code` runs what the
model writes: `grpo_jax/rewards/code.py` says what holds it back, and what does not.
"""

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.task_config import ArithmeticConfig


def get_config(name: str = "miniature") -> c.TrainConfig:
    """Returns the configuration called `miniature`, `math` or `code`."""
    configs = {"miniature": miniature, "math": math, "code": code}
    if name not in configs:
        raise ValueError(f"there is no {name!r}: use one of {list(configs)}")
    return configs[name]()


def miniature() -> c.TrainConfig:
    """Seven steps of arithmetic, all stated in the answer: luck is never right.

    The warm start leaves a sampled pass@1 of about 1.5 %. With its seed this run took
    three minutes on two cores and ended at 93 % of 256 test problems.
    """
    return c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature",
            tokenizer="characters",
            dtype=choices.Dtype.FLOAT32,
        ),
        task=c.TaskConfig(
            name="arithmetic",
            arithmetic=ArithmeticConfig(
                operations=7,
                answer=choices.Answer.ALL,
                mistake_fraction=0.5,
                problems_seed=1,
            ),
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=16,
            group_size=8,
            max_prompt_tokens=20,
            max_completion_tokens=64,
            chunk_steps=32,
        ),
        objective=c.ObjectiveConfig(loss=choices.Loss.DAPO),
        guidance=c.GuidanceConfig(
            fraction=0.25,
            length=choices.GuidanceLength.ADDITIVE,
            initial=36,
            minimum=1,
            maximum=39,
            delta=6,
            window=4,
        ),
        optimizer=c.OptimizerConfig(learning_rate=4e-4, beta2=0.98, warmup_steps=5),
        warm_start=c.WarmStartConfig(
            steps=2000,
            batch_size=64,
            demonstrations=20_000,
            optimizer=c.OptimizerConfig(
                learning_rate=3e-3,
                beta2=0.98,
                schedule=choices.Schedule.COSINE,
                warmup_steps=20,
            ),
        ),
        trainer=c.TrainerConfig(steps=40),
        evaluation=c.EvaluationConfig(every_steps=10, test_problems=256),
        checkpoint=c.CheckpointConfig(every_steps=10),
    )


def math() -> c.TrainConfig:
    """Qwen3-1.7B-Base on problems with reasoning traces, easy tiers first."""
    return c.TrainConfig(
        policy=c.PolicyConfig(path="Qwen/Qwen3-1.7B-Base"),  # paper
        task=c.TaskConfig(
            name="math",
            train_path="openr1_math.jsonl",
            question_column="problem",
            solution_column="generation",  # one verified trace a row
            tier_column="tier",
            use_chat_template=True,
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=28,  # code: 280 rollouts a step
            group_size=10,  # paper
            max_prompt_tokens=512,  # code
            max_completion_tokens=8192,  # paper; guidance counts in it: ours
            sampling=c.SamplingConfig(temperature=0.7),  # code
            order=choices.Order.TIERS,  # paper
            chunk_steps=64,
        ),
        # paper: the format reward has weight 0.1
        reward=c.RewardConfig(
            weights={"accuracy": 1.0, "think_answer_format": 0.1}, workers=8
        ),
        objective=c.ObjectiveConfig(
            loss=choices.Loss.GRPO,  # code: means of sequences
            kl_coef=0.04,  # code: the default of its library
        ),
        guidance=c.GuidanceConfig(
            fraction=0.25,  # paper, for this model
            loss=choices.GuidanceLoss.MASK,  # ours; code: include
            length=choices.GuidanceLength.MULTIPLICATIVE,  # paper, inverted as in code
            initial=1024,  # ours; code: 3072, which is also its largest
            minimum=32,  # ours; code: 1, where it sticks
            maximum=3072,  # code
            window=2,  # code
            max_ratio=2.0,  # ours
            on_zero=choices.OnZero.INCREASE,  # ours; code: hold
            signal_rows=choices.SignalRows.UNGUIDED,  # ours; code: all
            max_trace_fraction=0.9,  # ours; code: the whole trace
            open_thinking=True,  # ours
        ),
        optimizer=c.OptimizerConfig(
            learning_rate=1e-5,  # paper
            schedule=choices.Schedule.COSINE,  # code
            warmup_steps=9,  # code: 5 %
            final_fraction=0.1,  # code
        ),
        trainer=c.TrainerConfig(steps=175),  # paper: 1000 problems, 5 epochs
        evaluation=c.EvaluationConfig(
            every_steps=25,
            samples=4,
            sampling=c.SamplingConfig(temperature=0.6, top_p=0.95, top_k=20),  # paper
        ),
        checkpoint=c.CheckpointConfig(every_steps=25),
        mesh=c.MeshConfig(fsdp=8),
    )


def code() -> c.TrainConfig:
    """Qwen3-0.6B on Python problems with tests and reasoning traces."""
    return c.TrainConfig(
        policy=c.PolicyConfig(path="Qwen/Qwen3-0.6B"),  # code
        task=c.TaskConfig(
            name="code",
            train_path="code_cot.jsonl",  # paper: 1086 problems
            question_column="problem_statement",
            reference_column="verification_info",
            solution_column="generation",  # one trace a row
            prompt_template=(
                "{question}\n\nWrite a Python program that reads standard input and "
                "writes standard output. Give it in one ```python block."
            ),  # ours
            use_chat_template=True,
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=28,  # code: 280 rollouts a step
            group_size=10,  # code
            max_prompt_tokens=512,  # code
            max_completion_tokens=4096,  # code: a context of 4608
            sampling=c.SamplingConfig(temperature=0.7),  # code
            order=choices.Order.SHUFFLED,  # code
            chunk_steps=64,
        ),
        reward=c.RewardConfig(
            # paper: 1 and 0.1. The format is ours: Qwen3 never wrote the published one.
            weights={"tests_passed": 1.0, "code_format": 0.1},
            workers=8,
            check_seconds=5.0,  # code, for one test
            batch_seconds=600.0,  # ours
        ),
        objective=c.ObjectiveConfig(
            loss=choices.Loss.GRPO,  # code: means of sequences
            kl_coef=0.04,  # code: the default of its library
        ),
        guidance=c.GuidanceConfig(
            fraction=1 / 6,  # code: 2 of 12 rows, which are 2 of 10, too
            loss=choices.GuidanceLoss.MASK,  # ours; code: include
            length=choices.GuidanceLength.MULTIPLICATIVE,  # paper, inverted as in code
            initial=1024,  # ours; code: 3072, which is also its largest
            minimum=32,  # ours; code: 1, where it sticks
            maximum=2048,  # ours; code: 3072, which leaves 1024 to be written
            window=2,  # code
            max_ratio=2.0,  # ours
            on_zero=choices.OnZero.INCREASE,  # ours; code: hold
            # ours; code: a reward that its runs on programs do not have, so that the
            # length never moved.
            signal_reward="tests_passed",
            signal_rows=choices.SignalRows.UNGUIDED,  # ours; code: all
            max_trace_fraction=0.9,  # ours; code: the whole trace
            open_thinking=True,  # ours
        ),
        optimizer=c.OptimizerConfig(
            learning_rate=1e-5,  # code
            schedule=choices.Schedule.COSINE,  # code
            warmup_steps=2,  # code: 5 %
            final_fraction=0.1,  # code
        ),
        trainer=c.TrainerConfig(steps=38),  # code: one epoch
        evaluation=c.EvaluationConfig(
            every_steps=19,
            samples=4,
            sampling=c.SamplingConfig(temperature=0.6, top_p=0.95, top_k=20),  # paper
        ),
        checkpoint=c.CheckpointConfig(every_steps=19),
        mesh=c.MeshConfig(fsdp=8),
    )
