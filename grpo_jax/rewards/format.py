r"""Rewards for the shape of a completion: its thoughts, tags, box and code."""

import re
from collections.abc import Sequence

from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_THINK_ANSWER = re.compile(
    r"\s*<think>.*</think>\s*<answer>(?P<answer>.*)</answer>\s*", re.DOTALL
)
# Tags as Open-RS and open-r1 want them, each on a line of its own.
_THINK_LINE, _THINK_END_LINE = "<think>\n", "\n</think>\n"
_ANSWER_LINE, _ANSWER_END = "\n<answer>\n", "\n</answer>"
_ANSWER_END_LINE = re.compile(r"\n</answer>$", re.MULTILINE)


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


def open_rs_format(completions: Sequence[Completion]) -> list[float]:
    """Returns 1 where exactly one `</think>` stands on a line of its own, else 0.

    Tags of an answer are not looked at. Where the prompt begins the thoughts, this
    says little more than that the completion was not cut before their end.

    Source: Open-RS (arXiv 2503.16219), its code.
    """
    return [float(each.text.count(_THINK_END_LINE) == 1) for each in completions]


def open_r1_format(completions: Sequence[Completion]) -> list[float]:
    """Returns 1 for thoughts and then an answer, each tag on its own line, else 0.

    Nothing may precede `<think>`, so this is 0 where the prompt begins the thoughts;
    lines that follow `</answer>` do not matter.

    Source: huggingface/open-r1.
    """
    return [float(_is_open_r1(each.text)) for each in completions]


def open_rs_tag_count(completions: Sequence[Completion]) -> list[float]:
    """Returns 1/2 for each of `<think>` and `</think>` that occurs once on its line.

    Source: Open-RS, its code.
    """
    return _fractions_once(completions, (_THINK_LINE, _THINK_END_LINE))


def open_r1_tag_count(completions: Sequence[Completion]) -> list[float]:
    """Returns 1/4 for each tag of thoughts and answer that occurs once on its line.

    Source: huggingface/open-r1.
    """
    tags = (_THINK_LINE, _THINK_END_LINE, _ANSWER_LINE, _ANSWER_END)
    return _fractions_once(completions, tags)


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


def _is_open_r1(text: str) -> bool:
    if not text.startswith(_THINK_LINE):
        return False
    # If any end of the thoughts will do, the first one does.
    between = _THINK_END_LINE + _ANSWER_LINE.lstrip("\n")
    end = text.find(between, len(_THINK_LINE))
    return end >= 0 and bool(_ANSWER_END_LINE.search(text, end + len(between)))


def _fractions_once(
    completions: Sequence[Completion], tags: Sequence[str]
) -> list[float]:
    """Returns which fraction of `tags` each completion holds exactly once."""
    return [
        sum(each.text.count(tag) == 1 for tag in tags) / len(tags)
        for each in completions
    ]
