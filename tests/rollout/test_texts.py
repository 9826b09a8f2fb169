import numpy as np

from grpo_jax.records import Origin, Trajectories
from grpo_jax.rollout.texts import Status, Texts


def texts_of(*prompts, limit=6):
    """Rows that hold a prompt, with room for `limit` tokens."""
    texts = Texts.empty(0, 8, 2)
    for row in texts.add(len(prompts)).tolist():
        texts.limits[row] = limit
        texts.prompt_lengths[row] = len(prompts[row])
        texts.append(row, prompts[row], Origin.PROMPT)
    return texts


def record(texts, rows, counts, tokens):
    tokens = np.array(tokens, np.int32)
    scores = -tokens.astype(np.float32)
    texts.record(np.array(rows), np.array(counts), tokens, scores, scores / 2)


def test_new_rows_wait_and_say_nothing():
    texts = texts_of([5, 6])
    added = texts.add(2)
    assert added.tolist() == [1, 2] and len(texts) == 3
    assert texts.tokens[0, :2].tolist() == [5, 6]
    assert not texts.tokens[1:].any() and not texts.lengths[1:].any()
    assert (texts.status == Status.QUEUED).all()
    assert (texts.stops == -1).all() and (texts.parents == -1).all()


def test_given_tokens_stop_at_the_limit():
    texts = texts_of([5, 6], [7])
    texts.append(0, [10, 11], Origin.GUIDANCE)
    texts.append(0, [12, 13, 14], Origin.OBSERVATION)
    texts.append(0, [15], Origin.FORCED)
    assert texts.lengths.tolist() == [6, 1]
    assert texts.tokens[0].tolist() == [5, 6, 10, 11, 12, 13, 0, 0]
    assert texts.origins[0].tolist() == [1, 1, 3, 3, 5, 5, 0, 0]
    assert texts.tokens[1].tolist() == [7] + [0] * 7


def test_recorded_tokens_follow_each_row_and_are_cached_but_the_last():
    texts = texts_of([5, 6], [7], [8, 9, 4])
    record(texts, [2, 0], [1, 3], [[20, 21, 22], [30, 31, 32]])
    assert texts.tokens[:, :6].tolist() == [
        [5, 6, 30, 31, 32, 0],
        [7, 0, 0, 0, 0, 0],
        [8, 9, 4, 20, 0, 0],
    ]
    assert texts.origins[0, :6].tolist() == [1, 1, 2, 2, 2, 0]
    np.testing.assert_array_equal(texts.behavior_log_probs[0, 2:5], [-30, -31, -32])
    np.testing.assert_array_equal(texts.kept_log_mass[2, 2:5], [0, -10, 0])
    assert texts.lengths.tolist() == [5, 1, 4]
    assert texts.cached.tolist() == [4, 0, 3]


def test_truncation_leaves_no_trace():
    texts, shorter = texts_of([5, 6]), texts_of([5, 6])
    record(texts, [0], [3], [[30, 31, 32]])
    record(shorter, [0], [1], [[30, 31, 32]])
    texts.truncate(0, 3)
    for name, left in vars(texts).items():
        np.testing.assert_array_equal(left, getattr(shorter, name), err_msg=name)
    texts.cached[0] = 1
    texts.truncate(0, 3)
    assert texts.cached[0] == 1


def test_trajectories_come_in_the_asked_order():
    texts = texts_of([5, 6], [7], [8, 9, 4])
    texts.finished[2] = True
    seen = texts.trajectories([2, 0])
    assert isinstance(seen, Trajectories)
    assert seen.tokens[:, :3].tolist() == [[8, 9, 4], [5, 6, 0]]
    assert seen.prompt_lengths.tolist() == seen.lengths.tolist() == [3, 2]
    assert seen.finished.tolist() == [True, False]
    seen.tokens[:] = 0
    assert texts.tokens[0, 0] == 5
