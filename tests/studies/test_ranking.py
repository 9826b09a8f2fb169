"""How rewards rank pairs of completions of one prompt."""

import json

from grpo_jax.config import RewardConfig
from grpo_jax.rewards import legacy, length
from studies import ranking
from studies.ranking import Counts
from tests.rewards.helpers import completion, given


def test_pairs_are_of_one_group_and_counted_by_kind():
    # In the first group, of the lengths 3, 5 and 9, the two longer ones are wrong.
    rows = [completion(tokens=tokens) for tokens in (3, 5, 9)]
    rows += [completion(tokens=tokens, group=1) for tokens in (4, 7, 7)]
    accuracy = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    counts = ranking.count(rows, accuracy, given([0.5, 0.6, 0.2, 0.1, 0.2, 0.3]))
    assert counts == Counts(
        mixed=2,
        wrong_above_right=1,
        right=2,  # and one pair of equal length
        longer_above_of_right=2,
        wrong=1,
        longer_above_of_wrong=0,
    )
    assert counts + counts == Counts(4, 2, 4, 4, 2, 0)


def test_what_has_no_value_is_in_no_pair():
    rows = [completion(tokens=tokens) for tokens in (1, 2, 3)]
    counts = ranking.count(rows, [None, 1.0, 1.0], given([1.0, None, 1.0]))
    assert counts == Counts()


def ranked(accuracy, reward):
    texts = ["x" * characters for characters in range(0, 220, 10)]
    rows = [completion(text, tokens=len(text)) for text in texts]
    return ranking.count(rows, accuracy, reward)


def test_the_cosine_ranks_every_pair_as_it_says():
    parameters = vars(RewardConfig().cosine) | {"max_tokens": 220}
    for value in (0.0, 1.0):
        accuracy = [value] * 22
        counts = ranked(accuracy, length.cosine(given(accuracy), **parameters))
        assert counts.longer_above_of_right == 0
        assert counts.longer_above_of_wrong == counts.wrong
    mixed = [0.0, 1.0] * 11
    counts = ranked(mixed, length.cosine(given(mixed), **parameters))
    assert counts.mixed == 121 and counts.wrong_above_right == 0


def test_the_legacy_wave_gives_longer_completions_more():
    right = [1.0] * 22
    wave = legacy.legacy_open_rs_cosine(given(right), max_characters=70)
    counts = ranked(right, wave)
    assert 0 < counts.longer_above_of_right < counts.right
    # Up to its low it ranks right ones as it should, and wrong ones upside down.
    for value in (0.0, 1.0):
        accuracy = [value] * 22
        wave = legacy.legacy_open_rs_cosine(given(accuracy), max_characters=210)
        counts = ranked(accuracy, wave)
        assert counts.longer_above_of_right == counts.longer_above_of_wrong == 0


def test_completions_are_read_with_a_group_for_each_prompt(tmp_path):
    lines = [
        {
            "prompt": prompt,
            "completion": "ab",
            "reference": "1",
            "accuracy": accuracy,
            "completion_tokens": 3,
            "finished": True,
        }
        for prompt, accuracy in (("p", 1.0), ("p", None), ("q", 0.0))
    ]
    path = tmp_path / "before.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    completions, accuracy = ranking.read(path)
    assert [each.group for each in completions] == [0, 0, 1]
    assert accuracy == [1.0, None, 0.0]
    assert completions[0].text == "ab" and completions[0].num_tokens == 3
