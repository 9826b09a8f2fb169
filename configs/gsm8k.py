r"""GSM8K with Qwen2.5-0.5B-Instruct: the first run on a model of your own.

    python -m grpo_jax.train --config=configs/gsm8k.py --workdir=runs/gsm8k \
        --config.policy.path=Qwen/Qwen2.5-0.5B-Instruct \
        --config.task.train_path=gsm8k_train.jsonl \
        --config.task.test_path=gsm8k_test.jsonl

Written for one GPU of 24 to 80 GB or a v5e-8. It has been run end to end on a CPU with
a shrunken model only: its memory on a GPU and its learning curve are not known yet. On
a v5e-8 add `--config.mesh.fsdp=8`. The data files have a question and an answer a line;
"####" answers as OpenAI published them work as they are. Any Qwen2, Qwen3 or Llama 3
model directory can take the place of the policy.
"""

from grpo_jax import choices
from grpo_jax import config as c

_SYSTEM = (
    "Solve the problem. Reason step by step between <think> and </think>, then give "
    "the final answer in \\boxed{}."
)


def get_config() -> c.TrainConfig:
    """Returns the configuration."""
    return c.TrainConfig(
        policy=c.PolicyConfig(path="Qwen/Qwen2.5-0.5B-Instruct"),
        task=c.TaskConfig(
            name="math",
            train_path="hub:openai/gsm8k:main:train",
            test_path="hub:openai/gsm8k:main:test",
            validation_rows=200,
            system_prompt=_SYSTEM,
            use_chat_template=True,
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=32,
            group_size=8,
            max_prompt_tokens=320,
            max_completion_tokens=512,
            chunk_steps=32,
            max_rows=64,
        ),
        reward=c.RewardConfig(weights={"accuracy": 1.0, "format": 0.1}, workers=4),
        objective=c.ObjectiveConfig(loss=choices.Loss.DAPO),
        optimizer=c.OptimizerConfig(
            learning_rate=1e-6,
            warmup_steps=10,
            schedule=choices.Schedule.CONSTANT,
        ),
        trainer=c.TrainerConfig(steps=200),
        evaluation=c.EvaluationConfig(
            every_steps=20, samples=4, validation_problems=200
        ),
        checkpoint=c.CheckpointConfig(every_steps=20),
    )
