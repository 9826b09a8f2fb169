"""Documents from text files: passages of some sentences, under the file's title."""

import re
from collections.abc import Iterator

from etils import epath

from grpo_jax.retrieval.base import Document

SUFFIXES = (".txt", ".md")
# Characters of a passage at most: 100 to 150 words of English.
_LONGEST = 800
# Where a passage may end: between paragraphs and between sentences.
_ENDS = re.compile(r"\n\s*\n|(?<=[.!?])\s+|(?<=[。！？])")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*[^\s#])[ \t#]*$", re.MULTILINE)


def find(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields the text files of a folder and of those in it, in the order of names."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from find(path)
        elif path.suffix in SUFFIXES:
            yield path


def read(file: epath.Path, name: str) -> list[Document]:
    """Returns the passages of a file, `name#1`, `name#2` and so on.

    Their title is the first heading (`# Title`) of a .md file, or the file's name; a
    heading that the file begins with is not text as well. A file without text gives
    one document without any.

    Args:
      file: a text file.
      name: of the file within its corpus.

    Raises:
      ValueError: it is not UTF-8.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 ({error}): convert it, or move it elsewhere"
        ) from error
    title = file.stem
    if file.suffix == ".md" and (heading := _HEADING.search(text)):
        title = heading[1]
        text = text[heading.end() :].strip() if heading.start() == 0 else text
    return [
        Document(f"{name}#{number}", title, passage)
        for number, passage in enumerate(passages(text) or [""], start=1)
    ]


def passages(text: str, longest: int = _LONGEST) -> list[str]:
    """Returns a text in pieces of whole sentences, each as long as may be.

    A sentence that is too long is cut at a blank, or where it has none anywhere.

    Args:
      text: of any length.
      longest: characters of a piece, at most.
    """
    found, start, end = [], 0, 0  # text[start:end] is the piece so far
    for next_end in [*(match.end() for match in _ENDS.finditer(text)), len(text)]:
        if next_end - start > longest:
            found.append(text[start:end])
            start = end
        while next_end - start > longest:
            blank = text.rfind(" ", start + 1, start + longest)
            cut = blank if blank > 0 else start + longest
            found.append(text[start:cut])
            start = cut
        end = next_end
    found.append(text[start:end])
    return [piece.strip() for piece in found if piece.strip()]
