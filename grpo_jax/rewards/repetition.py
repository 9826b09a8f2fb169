"""The penalty for saying the same again and again."""

from collections.abc import Sequence

from grpo_jax.rewards.base import Completion, RewardFunction


def repetition_penalty(*, ngram: int, penalty: float) -> RewardFunction:
    """Returns the reward that is `penalty` times the share of repeated n-grams.

        penalty * (1 - distinct n-grams / n-grams)

    of words in lower case, as blanks separate them; 0 with fewer than `ngram` words. A
    text without blanks, as in Chinese, is one word.

    Args:
      ngram: words that repeat together; at least 1.
      penalty: 0 or less.

    Source: Yeo et al. (arXiv 2502.03373), as in huggingface/open-r1.
    """

    def reward(completions: Sequence[Completion]) -> list[float]:
        shares = [repeated_fraction(each.text, ngram) for each in completions]
        return [penalty * share if share else 0.0 for share in shares]

    return reward


def repeated_fraction(text: str, ngram: int) -> float:
    """Returns 1 - distinct n-grams / n-grams of words; 0 with fewer words than that."""
    words = text.lower().split()
    total = len(words) - ngram + 1
    if total < 1:
        return 0.0
    distinct = len({tuple(words[at : at + ngram]) for at in range(total)})
    return (total - distinct) / total
