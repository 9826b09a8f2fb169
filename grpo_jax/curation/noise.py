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
    DRAWING = "drawing"  # a figure that is in the text, as code
    FIGURE = "figure"  # what it shows is not in the text
    LINK = "link"
    CHOICES = "choices"  # the answer is a letter, or may be
    LONG_ANSWER = "long_answer"


_ASKS = r"(?:find|determine|compute|calculate|evaluate|solve|what|how)"
_TASK = rf"(?:{_ASKS}|prove|show)"
# Marks of two parts: "(a)", but not that of f(a), or "a)" and "a." where a line begins.
_FIRST, _SECOND = (
    [rf"(?:(?<![\w\\^)}}])\(\s*{mark}\s*\)|^\s*{mark}[.)])" for mark in marks]
    for marks in (("a", "1", "i"), ("b", "2", "ii"))
)
_MARKS = list(zip(_FIRST, _SECOND, strict=True))
_PARTS = "|".join(f"{one}.*?{two}" for one, two in _MARKS)
# "(a) Find f(2). (b) If ...": a first part that asks, and a second one.
_ASKED = "|".join(rf"{one}[\s$]*{_TASK}\b.*?{two}" for one, two in _MARKS)
_CODE = r"\[asy\]|\\begin\{tikzpicture\}"
# Three choices in a row: "(A) 1 (B) 2 (C) 3", in bold or not; "A) 1 B) 2 C) 3". P(A)
# is no choice.
_CHOICES = "|".join(
    ".{1,200}?".join(rf"{before}{letter}\){after}" for letter in "ABC")
    for before, after in (
        (r"(?<![A-Za-z])\(", ""),
        (r"(?:^|(?<=[\s*}]))", r"(?=[\s}*])"),
    )
)
_QUESTION = {
    # "(b) Find ...": a second part that asks. "(b) f is even" is a condition.
    Noise.MULTI_PART: re.compile(
        rf"(?:{_PARTS})[^.?()]{{0,80}}?\b{_TASK}\b|{_ASKED}", _ANYWHERE
    ),
    # Not "find the largest n, and prove that it is": there, a number is graded.
    Noise.PROOF: re.compile(
        rf"\A(?!.*\b{_ASKS}\b).*?(\b(?:prove|show)\s+that\b|\bprove\s*:|^\s*prove\b)",
        _ANYWHERE,
    ),
    Noise.DRAWING: re.compile(_CODE),
    # Not where a drawing, an array or a table is what the words refer to.
    Noise.FIGURE: re.compile(
        r"\\includegraphics|!\[[^\]]*\]\(|<img\b|"
        rf"\A(?!.*(?:{_CODE}|\\begin\{{(?:array|matrix|tabular)\}}|\|\s*:?-)).*?"
        r"(\b(?:(?:in|on|from|see)\s+(?:the|this)\s+(?:\w+\s+)?(?:figure|diagram)|"
        r"(?:figure|diagram|graph|picture)\s+(?:below|above|at\s+right)|"
        r"(?:figure|diagram|graph|picture|grid|solid|shape|region|spinner)\s+shown|"
        r"(?:shown|pictured)\s+(?:below|above|at\s+right)|as\s+(?:shown|pictured))\b)",
        re.IGNORECASE | re.DOTALL,
    ),
    Noise.LINK: re.compile(r"https?://\S+"),
    Noise.CHOICES: re.compile(_CHOICES, re.DOTALL | re.MULTILINE),
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
        return textwrap.shorten(match[match.lastindex or 0], 120)
    in_answer = _ANSWER.get(kind)
    match = in_answer and in_answer.fullmatch(problem.answer.strip())
    return f"answer {textwrap.shorten(match[0], 120)}" if match else ""
