r"""Forms in which texts are compared: words, words and operators, n-grams."""

import re
import unicodedata
from collections.abc import Sequence

# Scripts without spaces: each character is a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\W_])+")
_SYMBOL = re.compile(rf"{_WORD.pattern}|[^\w\s]|_")
# What changes how LaTeX looks and not what it says.
_LOOKS = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])(?![a-z])|[$~]|\\[()\[\]]")
_FRACTIONS = re.compile(r"\\[dt]frac(?![a-z])")
# "5!" is no punctuation, nor "f'", nor what stands inside a number or a ratio.
_PUNCTUATION = re.compile(r'[;?"`‘’“”]|(?<!\d)[.,:]|[.,:](?!\d)')


def words(text: str) -> list[str]:
    """Returns the words of a text: lower case, without punctuation or operators."""
    return _WORD.findall(_folded(text))


def symbols(text: str) -> list[str]:
    """Returns what two copies of a text have in common: its words and operators.

    Lower case; without the punctuation of sentences, the delimiters of formulas and the
    spacing of LaTeX. Unlike `words`, this tells x + 1 from x - 1.
    """
    text = _FRACTIONS.sub(r"\\frac", _LOOKS.sub(" ", _folded(text)))
    return _SYMBOL.findall(_PUNCTUATION.sub(" ", text))


def ngrams(parts: Sequence[str], n: int) -> list[str]:
    """Returns the n-grams of words, joined; a shorter text is one gram of its own."""
    if len(parts) <= n:
        return [" ".join(parts)] if parts else []
    return [" ".join(parts[i : i + n]) for i in range(len(parts) - n + 1)]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
