r"""The reward for staying in the letters of one script."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from grpo_jax.choices import Script
from grpo_jax.rewards.base import Completion, RewardFunction

# Formulas between delimiters, then commands without their arguments. "$18 or $20" are
# prices, not a formula. Linear in the text: a delimiter ends the search for its pair.
_LATEX = re.compile(
    r"\$\$[^$]*+\$\$|\$[^$\n]++\$(?!\d)"
    r"|\\\((?:[^\\]++|\\[^()])*+\\\)|\\\[(?:[^\\]++|\\[^\[\]])*+\\\]"
    r"|\\(?:[A-Za-z]+|.)",
    re.DOTALL,
)
# Greek is how mathematics is written; modifiers belong to other letters.
_NEUTRAL = ("GREEK", "MODIFIER", "")


def language(script: Script) -> RewardFunction:
    """Returns the share of letters that are of `script`; 1 where there are no letters.

        letters of the script / (letters of the script + letters of others)

    LaTeX is left out. Greek letters, and forms such as the bold or double-struck ones
    of mathematics, count for neither side.

    **A script is not a language**: French is as Latin as English is, and a mix of the
    two passes.

    Source: the language consistency reward of DeepSeek-R1 (arXiv 2501.12948), which
    counts words of the target language; letters need no dictionary.
    """

    def reward(completions: Sequence[Completion]) -> list[float]:
        return [script_fraction(each.text, script) for each in completions]

    return reward


def script_fraction(text: str, script: Script) -> float:
    """Returns the share of letters that are of `script`; 1 without letters."""
    ours = others = 0
    for character, count in Counter(_LATEX.sub(" ", text)).items():
        name = _script(character)
        if name == script.value.upper():
            ours += count
        elif name not in _NEUTRAL:
            others += count
    return ours / (ours + others) if ours + others else 1.0


@functools.lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """Returns how Unicode begins a letter's name, "" for what is no plain letter."""
    # A decomposition that begins with "<" marks another form of a letter.
    if not character.isalpha() or unicodedata.decomposition(character).startswith("<"):
        return ""
    plain = unicodedata.normalize("NFC", character)
    return unicodedata.name(plain[0], "").partition(" ")[0]
