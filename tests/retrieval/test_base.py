"""The highest scores come first, and of equal ones the earlier document."""

import numpy as np
import pytest

from grpo_jax.retrieval.base import top


def slow_top(scores, k):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [i for i in order if scores[i] > 0][:k]


@pytest.mark.parametrize("size", [0, 1, 5, 127, 128, 129, 1000])
@pytest.mark.parametrize("k", [1, 3, 10, 200])
def test_it_is_what_sorting_all_gives(size, k):
    rng = np.random.default_rng(size + k)
    # Few values, so that many are equal; a third are 0.
    scores = rng.integers(0, 9, size).astype(np.float32) / 4
    scores[rng.random(size) < 0.3] = 0
    assert top(scores, k).tolist() == slow_top(scores, k)


def test_all_equal_scores_come_in_order():
    assert top(np.ones(500, np.float32), 3).tolist() == [0, 1, 2]
    assert top(np.zeros(500, np.float32), 3).tolist() == []


def test_a_high_score_after_the_last_whole_block_is_found():
    scores = np.ones(300, np.float32)
    scores[[299, 130]] = 2, 3
    assert top(scores, 2).tolist() == [130, 299]
