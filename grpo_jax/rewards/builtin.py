"""The rewards that every task can name, with their parameters."""

from grpo_jax.config import RewardConfig
from grpo_jax.rewards import format as formats
from grpo_jax.rewards.base import RewardFunction
from grpo_jax.rewards.language import language
from grpo_jax.rewards.legacy import legacy_open_rs_accuracy, legacy_open_rs_cosine
from grpo_jax.rewards.length import cosine, length, soft_overlong
from grpo_jax.rewards.reasoning import reasoning_steps
from grpo_jax.rewards.repetition import repetition_penalty


def builtin_rewards(
    accuracy: RewardFunction, config: RewardConfig, max_completion_tokens: int
) -> dict[str, RewardFunction]:
    """Returns the built-in rewards by name.

    Args:
      accuracy: the task's own, which says of some rewards what is correct.
      config: parameters; where a limit of tokens is 0, it is that of the completion.
      max_completion_tokens: the longest completion of a rollout.
    """
    return {
        "cosine": cosine(
            accuracy,
            max_tokens=config.cosine.max_tokens,
            correct_short=config.cosine.correct_short,
            correct_long=config.cosine.correct_long,
            wrong_short=config.cosine.wrong_short,
            wrong_long=config.cosine.wrong_long,
        ),
        "length": length(accuracy),
        "soft_overlong": soft_overlong(
            max_tokens=config.overlong.max_tokens,
            buffer_tokens=config.overlong.buffer_tokens,
        ),
        "repetition_penalty": repetition_penalty(
            ngram=config.repetition.ngram, penalty=config.repetition.penalty
        ),
        "reasoning_steps": reasoning_steps,
        "language": language(config.language.script),
        "open_rs_format": formats.open_rs_format,
        "open_r1_format": formats.open_r1_format,
        "open_rs_tag_count": formats.open_rs_tag_count,
        "open_r1_tag_count": formats.open_r1_tag_count,
        "legacy_open_rs_accuracy": legacy_open_rs_accuracy(accuracy),
        "legacy_open_rs_cosine": legacy_open_rs_cosine(
            accuracy, max_characters=config.cosine.max_tokens or max_completion_tokens
        ),
    }
