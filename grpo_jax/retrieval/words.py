"""From text to the words that BM25 counts."""

import re
from collections.abc import Callable, Iterable

_WORD = re.compile(r"\w+")
# Lucene's English stop words.
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that "
        "the their then there these they this to was will with",
    )
)

Words = Callable[[str], list[str]]


def splitter(*, stop_words: bool, stemming: bool) -> Words:
    """Returns a function from a text to its words: runs of letters, digits and _.

    Args:
      stop_words: English words that say nothing, such as "the", are left out.
      stemming: English endings are cut off, so that "directed" finds "director".

    Raises:
      ValueError: stemming without the package that does it.
    """
    stem = _stemmer() if stemming else None

    def split(text: str) -> list[str]:
        words: Iterable[str] = _WORD.findall(text.lower())
        if stop_words:
            words = [word for word in words if word not in _STOP_WORDS]
        return stem(words) if stem else list(words)

    return split


def _stemmer() -> Callable[[Iterable[str]], list[str]]:
    try:
        import Stemmer
    except ModuleNotFoundError as error:
        raise ValueError(
            "config.retrieval.bm25.stemming is True and PyStemmer is not installed: "
            "pip install 'PyStemmer>=2.2,<4', or set it to False"
        ) from error
    return Stemmer.Stemmer("english").stemWords
