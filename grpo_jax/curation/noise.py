r"""Problems that a verifier of one final answer cannot grade fairly.

Rules of thumb. Each can be switched off, and what it dropped is listed with the words
that gave it away.
"""

import enum
import re
import textwrap
from collections.abc import Collection, Sequence

from grpo_jax.curation.problems import Drop, Problem, Verdict

_ANYWHERE = re.IGNORECASE | re.MULTILINE | re.DOTALL


class Noise(enum.StrEnum):
    """What is wrong with a problem."""

    MULTI_PART = "multi_part"  # several questions
    PROOF = "proof"  # there is nothing to grade
    FIGURE = "figure"  # what it shows is not in the text
    LINK = "link"
    CHOICES = "choices"  # the answer is a letter, or may be
    LONG_ANSWER = "long_answer"


_TASK = r"(?:find|determine|compute|calculate|evaluate|solve|prove|show|what|how)"
# Marks of two parts: "(a)", but not that of f(a), or "a)" and "a." where a line begins.
_FIRST, _SECOND = (
    [rf"(?:(?<![\w\\^)}}])\(\s*{mark}\s*\)|^\s*{mark}[.)])" for mark in marks]
    for marks in (("a", "1", "i"), ("b", "2", "ii"))
)
_PARTS = "|".join(f"{one}.*?{two}" for one, two in zip(_FIRST, _SECOND, strict=True))
_QUESTION = {
    # "(b) Find ...": a second part that asks. "(b) f is even" is a condition.
    Noise.MULTI_PART: re.compile(
        rf"(?:{_PARTS})[^.?()]{{0,80}}?\b{_TASK}\b", _ANYWHERE
    ),
    Noise.PROOF: re.compile(
        r"\b(?:prove|show)\s+that\b|\bprove\s*:|^\s*prove\b", re.IGNORECASE
    ),
    Noise.FIGURE: re.compile(
        r"\[asy\]|\\includegraphics|!\[[^\]]*\]\(|<img\b|\\begin\{tikzpicture\}"
        r"|\b(?:(?:in|on|from|see)\s+(?:the|this)\s+"
        r"(?:\w+\s+)?(?:figure|diagram|picture|drawing)|"
        r"(?:figure|diagram|graph|picture)\s+(?:below|above|shown|at\s+right)|"
        r"(?:shown|pictured)\s+(?:below|above|at\s+right)|as\s+(?:shown|pictured))\b",
        re.IGNORECASE,
    ),
    Noise.LINK: re.compile(r"https?://\S+"),
    # Three choices in a row: "(A) 1 (B) 2 (C) 3", in bold or not.
    Noise.CHOICES: re.compile(r"\(A\).{1,200}?\(B\).{1,200}?\(C\)", re.DOTALL),
}
_ANSWER = {
    Noise.MULTI_PART: re.compile(rf"(?:{_PARTS}).*", _ANYWHERE),
    # "B", "(B)", "\text{(B)}", "B.", "A, C"; a lower-case letter is a variable.
    Noise.CHOICES: re.compile(
        r"\$?(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*"
        r"(?:\([A-F]\)|[A-F](?:\s*,\s*[A-F])*[.)]?)\s*\}?\.?\$?"
    ),
}


def noise(
    problems: Sequence[Problem],
    *,
    keep: Collection[Noise] = (),
    max_answer_characters: int,
) -> list[Verdict]:
    """Drops problems of several questions, proofs, figures, links and choices.

    Args:
      problems: to be judged.
      keep: kinds that are left in.
      max_answer_characters: a longer answer is no number and no short formula.
    """

    def judge(problem: Problem) -> Verdict:
        for kind in Noise:
            sign = "" if kind in keep else _sign(kind, problem, max_answer_characters)
            if sign:
                return Drop(kind.value, sign)
        return None

    return [judge(problem) for problem in problems]


def _sign(kind: Noise, problem: Problem, max_answer_characters: int) -> str:
    """Returns what gives a problem away, "" if nothing does."""
    if kind is Noise.LONG_ANSWER:
        size = len(problem.answer)
        return f"{size} characters" if size > max_answer_characters else ""
    if match := _QUESTION[kind].search(problem.question):
        return textwrap.shorten(match[0], 120)
    in_answer = _ANSWER.get(kind)
    match = in_answer and in_answer.fullmatch(problem.answer.strip())
    return f"answer {textwrap.shorten(match[0], 120)}" if match else ""
