r"""Whether a completion's answer equals the reference. Runs inside the verifier pool.

math-verify compares; which part of the text is the answer is decided in
`extraction.py`, so that a number in the thoughts or in passing is never graded.
Comparing can take for ever (`9^{9^{9^9}}`): call this through a `VerifierPool`.
"""

import functools
import logging
import re
from typing import Any

import math_verify

from grpo_jax.rewards import extraction

_LATEX = (math_verify.LatexExtractionConfig(boxed_match_priority=0),)
_INTEGER = re.compile(r"[-+]?(?:[0-9]{1,18}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,5})")
_FORMULA = re.compile(r"\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
# math-verify reads a bare word as a product of its letters, so "east" equals "seat".
_WORDS = re.compile(
    r"(?=.*[^\W\d_]{3})[^\W\d_]+(?:[\s,.'!?-]+[^\W\d_]+)*[\s.!?]*", re.S
)
# math-verify reads 4.5e33 as 4.5 times e times 33.
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([-+]?\d+)(?![\w.])")

# It warns once that its own timeouts are off: the pool's deadline replaces them.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def verify_math(completion: str, reference: str) -> bool | None:
    r"""Returns whether `completion` states `reference`; None if that is unreadable.

    Args:
      completion: text; the answer is what `extraction.final_answer` finds.
      reference: a number, a bare LaTeX formula, one between `$...$`, `\(...\)` or
        `\[...\]`, or a worked solution that ends in a box, an anchor or a tag.

    Returns:
      True or False; None where the reference holds no mathematics, which is neither
      right nor wrong for any completion. A completion without an answer is False.
    """
    stated = extraction.final_answer(reference)
    gold = (reference if stated is None else stated).strip()
    if not _is_integer(gold) and not _parse(gold):
        return None
    answer = extraction.final_answer(completion)
    return False if answer is None else _equal(gold, answer)


@functools.lru_cache(maxsize=1024)  # the completions of a group repeat their answers
def _equal(gold: str, answer: str) -> bool:
    if _is_integer(gold) and _is_integer(answer):
        return _integer(gold) == _integer(answer)
    parsed = _parse(answer)
    if not parsed:
        return False
    return math_verify.verify(
        list(_parse(gold)), list(parsed), timeout_seconds=None, raise_on_error=True
    )


@functools.lru_cache(maxsize=1024)
def _parse(answer: str) -> tuple[Any, ...]:
    """Returns the sympy expression of an answer, () if it is not mathematics."""
    answer = answer.strip().rstrip(".").strip()
    if not answer or _WORDS.fullmatch(answer):
        return ()
    answer = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer)
    # math-verify finds a bare formula, `2\sqrt{3}`, only inside delimiters: outside
    # them it would read 2. A box takes everything, delimiters and line breaks too.
    text = answer if _FORMULA.search(answer) else rf"\boxed{{{answer}}}"
    parsed = math_verify.parse(
        text,
        _LATEX,
        fallback_mode="no_fallback",
        parsing_timeout=0,
        raise_on_error=True,
    )
    return tuple(parsed)


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


# math-verify compiles its patterns at first use: now, before any check's deadline runs.
_equal("x", "y")
