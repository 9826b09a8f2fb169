r"""The training reward of David-GRPO as its code computes it, to compare runs with.

Nothing to build on. What is wrong with it, and what `search.david` does instead:

1. It scores the prompt together with the completion. The instructions hold one of each
   opening tag and `</think>`, so that the check for `</think>` says nothing.
2. `\boxed{}` is a part of every gold answer and earns a quarter; a gold answer of which
   normalisation leaves nothing matches every answer.
3. Parts of words match: `1` earns a quarter of `1945`.
4. An answer that contains the gold one earns a quarter, one that has 70% of its words
   in any order a half, as much as the gold one itself.
5. A box ends at its first closing brace.
6. Titles are parsed from text, where those with quotation marks never match; a policy
   that writes result blocks of its own is paid for them.
7. A query that differs by a blank is not a repetition.
8. A late `<think>` hides all searches before it.
9. Filler words are dropped and zero to nine become digits in training only, so that
   training and evaluation disagree on what is right.
"""

import re
import string
from collections.abc import Sequence

from grpo_jax.rewards import extraction
from grpo_jax.rewards.answer import golds_of
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.tags import DAVID
from grpo_jax.rewards.titles import normalize_title

_TITLE = re.compile(r'result\s+\d+:\s*"([^"]+)"')
_BOX = re.compile(r"\\boxed{([^}]*)}")
_NUMBERS = "zero|one|two|three|four|five|six|seven|eight|nine"
_FILLERS = re.compile(r"\b(well|so|basically|actually|literally|simply|just|um|uh)\b")


def legacy_david(completions: Sequence[Completion]) -> list[float | None]:
    """Returns 0.5 x recall of gold titles + 0.5, 0.25 or 0 for the answer, or 0.

    The best over the gold answers. 0 where one of these holds: no `</think>`; a tag of
    a search after the last one; no query after the last `<think>`; unbalanced tags, or
    as many results as queries are not there, or a query is repeated exactly; no box.
    Without gold titles (the column "gold_titles") the answer counts twice, and tags are
    neither balanced nor queries compared.
    """
    return [
        None if row.failed else max(_score(row, gold) for gold in golds_of(row))
        for row in completions
    ]


def _score(row: Completion, gold: str) -> float:
    text = row.prompt + row.text
    titles = row.columns.get("gold_titles") or ()
    think = extraction.THINK_CLOSE
    after_thoughts = text.rpartition(think)[2]
    searches = text.rpartition(extraction.THINK_OPEN)[2].strip()
    boxes = _BOX.findall(after_thoughts)
    if not gold or think not in text or not boxes:
        return 0.0
    if any(tag in after_thoughts for tag in (*DAVID.query, *DAVID.observation)):
        return 0.0
    if DAVID.query.open not in searches:
        return 0.0
    worth = _worth(_normalize(boxes[-1]), _normalize(gold))
    if not titles:
        return 2 * worth
    return 0.5 * _recall(searches, titles) + worth if _balanced(searches) else 0.0


def _balanced(text: str) -> bool:
    counts = {text.count(tag) for tag in (*DAVID.query, *DAVID.observation)}
    queries = _between(*DAVID.query, text)
    return len(counts) == 1 and len(set(queries)) == len(queries)


def _recall(text: str, gold_titles: Sequence[str]) -> float:
    blocks = _between(*DAVID.observation, text)
    shown = {
        normalize_title(title) for each in blocks for title in _TITLE.findall(each)
    }
    golds = {normalize_title(title) for title in gold_titles}
    return len(shown & golds) / len(golds)


def _between(opening: str, closing: str, text: str) -> list[str]:
    pattern = f"{re.escape(opening)}(.*?){re.escape(closing)}"
    return re.findall(pattern, text, re.DOTALL)


def _worth(said: str, gold: str) -> float:
    if said == gold:
        return 0.5
    if said in gold or gold in said:
        return 0.25
    words = set(gold.split())
    return 0.5 if len(words & set(said.split())) >= 0.7 * len(words) else 0.0


def _normalize(text: str) -> str:
    text = "".join(each for each in text.lower() if each not in string.punctuation)
    text = re.sub("[「」『』]", "", re.sub(r"\b(a|an|the)\b", " ", text))
    for digit, word in enumerate(_NUMBERS.split("|")):
        text = re.sub(rf"\b{word}\b", str(digit), text)
    return " ".join(_FILLERS.sub(" ", text).split())
