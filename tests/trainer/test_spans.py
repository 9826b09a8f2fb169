"""Origins by tokens and by characters."""

import random

import numpy as np
import pytest

from grpo_jax.records import Origin
from grpo_jax.trainer.spans import text_spans, token_spans


def one_a_token(pieces):
    return [("sampled", at, at + 1) for at in range(len(pieces))]


def test_runs_of_equal_origin():
    origins = np.array([Origin.GUIDANCE] * 2 + [Origin.SAMPLED, Origin.OBSERVATION])
    assert token_spans(origins.astype(np.uint8)) == [
        ("guidance", 0, 2),
        ("sampled", 2, 3),
        ("observation", 3, 4),
    ]
    assert token_spans(np.zeros(0, np.uint8)) == []


def test_a_character_belongs_to_the_span_that_begins_it():
    euro = "€".encode()
    pieces = [b"", "né".encode(), euro[:1], euro[1:], b"x"]
    spans = [("sampled", 0, 2), ("observation", 2, 4), ("sampled", 4, 7)]
    found = text_spans(spans, np.array([1, 2, 3, 4, 4, 0, 1]), pieces)
    assert found == [("sampled", 0, 3), ("observation", 3, 4), ("sampled", 4, 7)]


@pytest.mark.parametrize("seed", range(20))
def test_spans_follow_one_another_to_the_end_of_the_text(seed):
    rng = random.Random(seed)
    # Of these bytes some are characters, and many are parts or nonsense.
    some = [*"aé€🙂".encode(), 0xFF, 0xC0]
    pieces = [bytes(rng.choices(some, k=rng.randrange(4))) for _ in range(40)]
    found = text_spans(one_a_token(pieces), np.arange(len(pieces)), pieces)
    text = b"".join(pieces).decode(errors="replace")
    assert "".join(text[start:end] for _, start, end in found) == text
    edges = [0, *(end for _, _, end in found)]
    assert [start for _, start, _ in found] == edges[:-1]
    assert edges == sorted(edges) and edges[-1] == len(text)


def test_whole_characters_are_cut_exactly():
    texts = ["", "aé", "€🙂", "日本語", "x"]
    pieces = [text.encode() for text in texts]
    found = text_spans(one_a_token(pieces), np.arange(len(pieces)), pieces)
    assert ["".join(texts)[start:end] for _, start, end in found] == texts
