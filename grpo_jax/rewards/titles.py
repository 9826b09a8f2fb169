"""Titles of pages, compared."""

import html
import re
import unicodedata

_DROPPED = re.compile(r"[^\w\s]")


def normalize_title(title: str) -> str:
    """Returns a title in lower case, its entities decoded, of words and blanks only.

    A title that has no letter or digit ("?") stays what it is.

    Source: David-GRPO (arXiv 2601.21699), its code, which decodes ten entities and
    leaves nothing of "?".
    """
    title = unicodedata.normalize("NFC", html.unescape(title)).lower()
    return " ".join((_DROPPED.sub("", title) or title).split())
