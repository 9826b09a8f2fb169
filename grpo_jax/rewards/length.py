"""Rewards that look at how many tokens a completion has."""

import math
from collections import defaultdict
from collections.abc import Sequence

from grpo_jax.rewards.base import Completion, RewardFunction


def cosine(
    accuracy: RewardFunction,
    *,
    max_tokens: int,
    correct_short: float,
    correct_long: float,
    wrong_short: float,
    wrong_long: float,
) -> RewardFunction:
    """Returns the reward that moves from a short to a long value over the length.

        long + (short - long) * (1 + cos(pi * min(tokens / max_tokens, 1))) / 2

    with one pair of values for correct completions and one for wrong ones. None where
    `accuracy` is None.

    Args:
      accuracy: 1 where a completion is correct.
      max_tokens: where the long value is reached; it holds from there on. 0: the
        limit that each completion was written under.
      correct_short: value of a correct completion without tokens.
      correct_long: value of a correct completion of `max_tokens`.
      wrong_short: value of a wrong completion without tokens.
      wrong_long: value of a wrong completion of `max_tokens`.

    Source: Yeo et al. (arXiv 2502.03373), as Open-RS describes it. See `legacy.py` for
    what its code did.
    """

    def value(correct: float, each: Completion) -> float:
        progress = min(each.num_tokens / (max_tokens or _limit(each)), 1.0)
        if correct == 1.0:
            return half_cosine(progress, correct_short, correct_long)
        return half_cosine(progress, wrong_short, wrong_long)

    def reward(completions: Sequence[Completion]) -> list[float | None]:
        return [
            None if correct is None else value(correct, each)
            for each, correct in zip(completions, accuracy(completions), strict=True)
        ]

    return reward


def _limit(completion: Completion) -> int:
    """Returns the limit that a completion was written under.

    Raises:
      ValueError: there was none.
    """
    if not completion.max_tokens:
        raise ValueError("a completion without a limit: give the reward's max_tokens")
    return completion.max_tokens


def half_cosine(progress: float, start: float, end: float) -> float:
    """Returns half a wave of a cosine: `start` at 0, `end` at 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def length(accuracy: RewardFunction) -> RewardFunction:
    """Returns the reward for being short among the completions of one prompt.

        x = 1/2 - (tokens - shortest) / (longest - shortest)

    is the value of a correct completion, min(0, x) that of a wrong one; 0 where all of
    a group are equally long. None where `accuracy` is None.

    Source: Kimi k1.5 (arXiv 2501.12599), section 2.3.3.
    """

    def reward(completions: Sequence[Completion]) -> list[float | None]:
        groups: dict[int, list[int]] = defaultdict(list)
        for each in completions:
            groups[each.group].append(each.num_tokens)
        values: list[float | None] = []
        for each, correct in zip(completions, accuracy(completions), strict=True):
            if correct is None:
                values.append(None)
                continue
            share = _brevity(each.num_tokens, groups[each.group])
            values.append(share if correct == 1.0 else min(0.0, share))
        return values

    return reward


def _brevity(num_tokens: int, group: Sequence[int]) -> float:
    """Returns 1/2 for the shortest of a group to -1/2 for the longest, 0 if equal."""
    shortest, longest = min(group), max(group)
    if shortest == longest:
        return 0.0
    return 0.5 - (num_tokens - shortest) / (longest - shortest)


def soft_overlong(*, max_tokens: int, buffer_tokens: int) -> RewardFunction:
    """Returns the reward that falls from 0 to -1 over the last `buffer_tokens`.

        (max_tokens - buffer_tokens - tokens) / buffer_tokens, between -1 and 0

    Args:
      max_tokens: where -1 is reached. 0: the limit that each completion was written
        under.
      buffer_tokens: over how many tokens before that it falls. 0: a quarter of them.

    Source: DAPO (arXiv 2503.14476), equation 13.
    """

    def value(each: Completion) -> float:
        end = max_tokens or _limit(each)
        buffer = buffer_tokens or max(1, end // 4)
        return max(-1.0, min(0.0, (end - buffer - each.num_tokens) / buffer))

    def reward(completions: Sequence[Completion]) -> list[float]:
        return [value(each) for each in completions]

    return reward
