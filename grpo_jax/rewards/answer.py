"""Short answers compared as SQuAD and HotpotQA do: exact match and overlap of words."""

import collections
import re
import string
import unicodedata
from collections.abc import Sequence

from grpo_jax.rewards.base import Completion, RewardFunction, one_by_one
from grpo_jax.rewards.reading import read_answer
from grpo_jax.rewards.tags import TagSet

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Answers that share words with others and mean something else.
_VERDICTS = ("yes", "no", "noanswer")


def normalize(text: str) -> str:
    """Returns `text` in lower case, without punctuation, articles and extra blanks.

    Source: the evaluation scripts of SQuAD and HotpotQA, whose values these are for
    ASCII, with two deviations. Other writings are read as Unicode has them, compatible
    forms as one and all punctuation dropped, where the scripts know ASCII only. Where
    nothing would be left ("The", "?"), articles stay, and then punctuation too: only
    blanks are normalised to "", so that no other text equals everything else of its
    kind.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    words = "".join(filter(_is_kept, text))
    for candidate in (_ARTICLES.sub(" ", words), words, text):
        if candidate.strip():
            return " ".join(candidate.split())
    return ""


def exact(answer: str, golds: Sequence[str]) -> float:
    """Returns 1 where `answer` is one of `golds` after normalisation, else 0."""
    said = normalize(answer)
    return float(bool(said) and said in map(normalize, golds))


def f1(answer: str, golds: Sequence[str]) -> float:
    """Returns the F1 of words with the nearest of `golds`.

    Precision is the share of the answer's words that the gold has, recall the share of
    the gold's that the answer has, repeated words counted as often as both have them.
    Where either is "yes", "no" or "noanswer" and they differ, 0: "yes it is" is not
    "yes".

    Source: HotpotQA (arXiv 1809.09600), its evaluation script.
    """
    return max((_f1(normalize(answer), normalize(gold)) for gold in golds), default=0.0)


def golds_of(completion: Completion) -> tuple[str, ...]:
    """Returns every answer that is right: the column "golds", else the reference."""
    return tuple(completion.columns.get("golds") or [completion.reference])


def exact_match(tags: TagSet) -> RewardFunction:
    """Returns the reward that is 1 where the answer is right, else 0."""

    def value(completion: Completion) -> float:
        return exact(read_answer(tags, completion) or "", golds_of(completion))

    return one_by_one(value)


def answer_f1(tags: TagSet) -> RewardFunction:
    """Returns the reward that is the F1 of the answer's words; 0 without an answer."""

    def value(completion: Completion) -> float:
        return f1(read_answer(tags, completion) or "", golds_of(completion))

    return one_by_one(value)


def _is_kept(character: str) -> bool:
    return not (
        character in string.punctuation or unicodedata.category(character)[0] == "P"
    )


def _f1(said: str, gold: str) -> float:
    if said != gold and (said in _VERDICTS or gold in _VERDICTS):
        return 0.0
    said_words, gold_words = said.split(), gold.split()
    common = collections.Counter(said_words) & collections.Counter(gold_words)
    # 2PR / (P + R) with P = common / said and R = common / gold.
    return 2 * common.total() / max(1, len(said_words) + len(gold_words))
