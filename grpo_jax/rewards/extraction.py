r"""Where a completion states its answer: after the thoughts, in a box, tag or block.

Pure functions of text, linear in its length, because a policy writes what it likes.
"""

import re

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|(?P<brace>[{}])", re.DOTALL)
_ANSWER_OPEN, _ANSWER_CLOSE = "<answer>", "</answer>"
# "#### 4", "The answer is 4", "The final answer to this is: 4", "Answer: 4".
_ANCHOR = re.compile(
    r"####|\banswer\b(?:[^\n.:=]{0,60}?\bis\b|\s*[:=])\s*[:=]?", re.IGNORECASE
)
# Mathematics between delimiters. "$18 or $20" are prices, not a formula.
_DELIMITED = re.compile(
    r"\$\$(.+?)\$\$|\$([^$\n]+)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
# What opens a block of Python, and what closes a block.
_FENCE = re.compile(
    r"(?P<open>```(?:python3?|py)[ \t]*\r?\n)|^[ \t]*```(?!\w)", re.IGNORECASE | re.M
)
# A number that prose follows: "$1,800 per month". In "2 pi" or "3 or 4" the words
# belong to the answer.
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)[$€£¥]?(?P<digits>\d(?:[\d,]*\d)?(?:\.\d+)?)"
    r"(?=\s*$|[.!?](?:\s|$)|[,;]?\s+(?!(?:pi|e|sqrt|sin|cos|tan|log|ln|exp|or|and|to|"
    r"mod|times|divided|plus|minus|over|per ?cent|hundred|thousand|million|billion|"
    r"dozen)\b)[A-Za-z]{2,})"
)


def prefilled(prompt: str, text: str) -> str:
    """Returns `text`, begun with the `<think>` that its prompt ends with, if any."""
    return THINK_OPEN + text if prompt.rstrip().endswith(THINK_OPEN) else text


def after_thinking(text: str) -> str:
    """Returns what follows the thoughts; nothing follows thoughts that never end."""
    return text.rpartition(THINK_CLOSE)[2].partition(THINK_OPEN)[0]


def last_box(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{...}`, None if no box is closed.

    Of nested boxes the outer one counts. Braces must balance, escaped ones aside.
    """
    content, open_braces = None, []
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_braces.append(match.end())
        elif match["brace"] == "{":
            open_braces.append(None)
        elif match["brace"] == "}" and open_braces:
            start = open_braces.pop()
            if start is not None:
                content = (start, match.start())
    return None if content is None else text[slice(*content)].strip()


def python_blocks(text: str) -> list[str]:
    """Returns what stands between each "```python" and the "```" that closes it.

    The one ends its line, the other begins a line. A block that is opened once more
    before it is closed begins there.
    """
    blocks, start = [], None
    for fence in _FENCE.finditer(text):
        if fence["open"]:
            start = fence.end()
        elif start is not None:
            blocks.append(text[start : fence.start()])
            start = None
    return blocks


def final_answer(text: str) -> str | None:
    r"""Returns the answer that `text` states, None if it states none.

    Looked for after the thoughts, in this order: the last closed `\boxed{...}`; the
    last `<answer>...</answer>`; the last line if it begins with "A:"; the last "answer
    is ...", "answer: ..." or "#### ...".
    Where two boxes differ, the last one counts.
    """
    text = after_thinking(text)
    box = last_box(text)
    if box is not None:
        return box
    start = text.rfind(_ANSWER_OPEN, 0, max(text.rfind(_ANSWER_CLOSE), 0))
    if start >= 0:
        tagged = text[start + len(_ANSWER_OPEN) :].partition(_ANSWER_CLOSE)[0]
        stated = _after_anchor(tagged)
        return _without_prose(tagged if stated is None else stated)
    stated = _after_anchor(text)
    return None if stated is None else _without_prose(stated)


def after_hashes(reference: str) -> str:
    """Returns the answer of a reference in GSM8K's original form, else all of it.

    Of `reasoning #### 1,234` that is 1234: what follows the last `####`, without
    commas.
    """
    if "####" not in reference:
        return reference
    return reference.rpartition("####")[2].strip().replace(",", "")


def _after_anchor(text: str) -> str | None:
    text = text.replace("**", "")
    last_line = text.rstrip().rpartition("\n")[2].lstrip()
    if last_line.startswith("A:"):  # elsewhere it may be the first of several choices
        return last_line.removeprefix("A:")
    end = None
    for match in _ANCHOR.finditer(text):
        end = match.end()
    return None if end is None else text[end:]


def _without_prose(text: str) -> str:
    """Returns the formula or number that `text` begins with, else a sentence."""
    text = text.strip()
    formula = _DELIMITED.match(text)
    if formula:
        return next(group for group in formula.groups() if group is not None).strip()
    line = text.partition("\n")[0]
    number = _NUMBER.match(line)
    if number:
        return number["sign"] + number["digits"]
    return re.split(r"\.(?:\s|$)", line, maxsplit=1)[0].strip()
