"""A task a tiny model learns in seconds, to copy four digits, and its guided run."""

import numpy as np

from configs import g2rpoa
from grpo_jax.config import TaskConfig, TrainConfig
from grpo_jax.data.examples import Example
from grpo_jax.tasks.arithmetic import accuracy
from grpo_jax.tasks.base import Task


def get_config() -> TrainConfig:
    config = g2rpoa.miniature()
    config.task.name = "tests.copying:copying"
    config.warm_start.steps, config.warm_start.demonstrations = 300, 2000
    config.rollout.max_prompt_tokens, config.rollout.max_completion_tokens = 8, 24
    config.trainer.steps, config.evaluation.every_steps = 24, 0
    config.reward.weights = {"accuracy": 1.0}
    config.guidance.minimum, config.guidance.delta = 0, 1
    config.guidance.initial, config.guidance.maximum = 6, 8
    config.guidance.max_trace_fraction = 1.0
    return config


def copying(config: TaskConfig) -> Task:
    """Returns the task of `7291?` and `<think>7;2;9;1</think><answer>7291</answer>`."""
    del config
    numbers = np.random.default_rng(0).permutation(10_000)
    examples = [
        Example(
            id=index,
            question=f"{number:04}?",
            reference=f"{number:04}",
            solution=solution(f"{number:04}"),
        )
        for index, number in enumerate(numbers.tolist())
    ]
    return Task(
        name="copying",
        train=examples[:2000],
        validation=[],
        test=examples[2000:2064],
        rewards={"accuracy": accuracy},
        demonstrate=demonstrate,
    )


def solution(digits):
    return f"<think>{';'.join(digits)}</think><answer>{digits}</answer>"


def demonstrate(examples, rng):
    """Replaces half of the digits by chance, and answers with what was written."""
    written = []
    for example in examples:
        wrong = rng.random(4) < 0.5
        noise = rng.integers(10, size=4).astype(str)
        digits = np.where(wrong, noise, list(example.reference))
        written.append(solution("".join(digits)))
    return written
