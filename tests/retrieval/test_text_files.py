"""Text files become passages: nothing is lost, no sentence is cut that need not be."""

import random

import pytest
from etils import epath

from grpo_jax.retrieval import text_files
from grpo_jax.retrieval.base import Document


def read(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return text_files.read(epath.Path(path), name)


def test_sentences_and_paragraphs_stay_whole():
    text = "One two. Three four? Five.\n\nSix seven eight. Nine"
    assert text_files.passages(text, 28) == [
        "One two. Three four? Five.",
        "Six seven eight. Nine",
    ]
    assert text_files.passages(text, 12) == [
        "One two.",
        "Three four?",
        "Five.",
        "Six seven",
        "eight. Nine",
    ]
    assert text_files.passages("一二三。四五六。七", 4) == [
        "一二三。",
        "四五六。",
        "七",
    ]
    assert text_files.passages("abcdefgh", 3) == ["abc", "def", "gh"]
    assert text_files.passages("") == []


def test_nothing_is_lost_and_nothing_too_long():
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(draw.choices("ab .!\n。", k=draw.randrange(80)))
        longest = draw.randrange(1, 20)
        pieces = text_files.passages(text, longest)
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(0 < len(piece) <= longest for piece in pieces)


def test_passages_are_numbered_and_share_a_title(tmp_path):
    sentence = "It was built in the year 1763 by the sultan himself. "
    documents = read(tmp_path, "mosque.txt", 40 * sentence)
    assert [each.id for each in documents] == [f"mosque.txt#{n}" for n in (1, 2, 3)]
    assert {each.title for each in documents} == {"mosque"}
    assert all(100 <= len(each.text.split()) <= 170 for each in documents[:-1])


@pytest.mark.parametrize(
    ("name", "text", "title", "kept"),
    [
        ("a.md", "# The *old* inn ##\n\nText.", "The *old* inn", "Text."),
        ("a.md", "Before.\n\n## Later\nText.", "Later", "Before.\n\n## Later\nText."),
        ("a.md", "#no heading\nText.", "a", "#no heading\nText."),
        ("a.md", "# Alone", "Alone", ""),
        ("a.txt", "# no heading here\nText.", "a", "# no heading here\nText."),
        ("a.txt", " \n", "a", ""),
    ],
)
def test_titles(tmp_path, name, text, title, kept):
    assert read(tmp_path, name, text) == [Document(f"{name}#1", title, kept)]
