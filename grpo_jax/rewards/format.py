r"""Rewards for the shape of a completion: its thoughts, tags, box and code."""

import re
from collections.abc import Sequence

from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_THINK_ANSWER = re.compile(
    r"\s*<think>.*</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL
)


def think_answer_format(completions: Sequence[Completion]) -> list[float]:
    """Returns 1 for `<think>...</think><answer>...</answer>` and nothing else, else 0.

    Each tag occurs once, only whitespace stands outside, the answer is not empty.
    Where the prompt ends with `<think>`, the completion goes on from there.
    """
    return [float(_is_think_answer(each)) for each in completions]


def boxed_format(completions: Sequence[Completion]) -> list[float]:
    r"""Returns 1 where a closed, non-empty `\boxed{...}` follows the thoughts, else 0.

    The thoughts may be absent; if begun, they end, and at most one `</think>` occurs.
    """
    return [float(_is_boxed(each)) for each in completions]


def code_format(completions: Sequence[Completion]) -> list[float]:
    """Returns 1 where one closed "```python" block follows the thoughts, else 0.

    One, not more. The thoughts may be absent; if begun, they end, and at most one
    `</think>` occurs.
    """
    blocks = [
        extraction.python_blocks(_after_thinking_once(each)) for each in completions
    ]
    return [float(len(each) == 1) for each in blocks]


def _is_think_answer(completion: Completion) -> bool:
    text = extraction.prefilled(completion.prompt, completion.text)
    if any(text.count(tag) != 1 for tag in _TAGS):
        return False
    match = _THINK_ANSWER.fullmatch(text)
    return match is not None and bool(match["answer"].strip())


def _is_boxed(completion: Completion) -> bool:
    return bool(extraction.last_box(_after_thinking_once(completion)))


def _after_thinking_once(completion: Completion) -> str:
    """Returns what follows the thoughts, "" where more than one `</think>` occurs."""
    text = extraction.prefilled(completion.prompt, completion.text)
    if text.count(extraction.THINK_CLOSE) > 1:
        return ""
    return extraction.after_thinking(text)
