"""Easy prompts have their share of every step, and come in an order of their own."""

import itertools
import json

import pytest

from grpo_jax import choices
from grpo_jax.data.examples import Example
from grpo_jax.data.mixed_prompts import MixedStream, is_easy
from grpo_jax.data.tokenizer import load_tokenizer

EASY = {0, 3, 6, 9, 12}  # one hop; the others two


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("characters")


def examples(count=15, hops=None):
    return [
        Example(
            id=i,
            question=f"{i}?",
            reference="",
            tier=count - i,
            columns={"hops": (1 if i in EASY else 2) if hops is None else hops},
        )
        for i in range(count)
    ]


def stream(tokenizer, rows=None, **options):
    options = {
        "prompts_per_step": 4,
        "easy_fraction": 0.25,
        "easy_hops": 1,
        "seed": 1,
        "max_prompt_tokens": 8,
        **options,
    }
    return MixedStream(rows or examples(), tokenizer, **options)


def ids(batches, count):
    return [
        [prompt.example.id for prompt in batch]
        for batch in itertools.islice(batches, count)
    ]


def easy_of(batch):
    return [id for id in batch if id in EASY]


def test_every_step_has_its_share_and_no_prompt_twice(tokenizer):
    batches = ids(stream(tokenizer), 60)
    assert all(len(set(batch)) == 4 for batch in batches)
    assert all(len(easy_of(batch)) == 1 for batch in batches)
    # Each kind goes through all of its own before any comes again.
    easy = [id for batch in batches for id in easy_of(batch)]
    assert all(set(easy[at : at + 5]) == EASY for at in range(0, 60, 5))
    others = [id for batch in batches for id in batch if id not in EASY]
    assert all(len(set(others[at : at + 9])) == 9 for at in range(0, 180, 9))
    assert set(others) == set(range(15)) - EASY


def test_a_share_that_is_no_whole_number_of_prompts_is_kept_over_steps(tokenizer):
    batches = ids(stream(tokenizer, easy_fraction=0.3, prompts_per_step=5), 40)
    counts = [len(easy_of(batch)) for batch in batches]
    assert set(counts) == {1, 2} and sum(counts) == 60
    assert all(len(set(batch)) == 5 for batch in batches)


def test_more_are_taken_in_the_same_share_and_none_twice(tokenizer):
    batches = stream(tokenizer)
    first = [prompt.example.id for prompt in next(batches)]
    more = [prompt.example.id for prompt in batches.take(8, without=first)]
    assert len(set(first + more)) == 12
    assert len(easy_of(more)) == 2
    # Where one kind is used up the other goes on, and at last there is none.
    rest = [prompt.example.id for prompt in batches.take(9, without=first + more)]
    assert sorted(first + more + rest) == list(range(15))
    assert batches.take(1, without=range(15)) == []
    assert [len(easy_of(batch)) for batch in ids(batches, 9)] == [1] * 9


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_a_resumed_stream_equals_the_uninterrupted_one(tokenizer, taken):
    options = {"easy_fraction": 0.3}
    whole = stream(tokenizer, **options)
    head = ids(whole, taken)
    whole.take(3, without=head[-1] if head else ())
    state = json.loads(json.dumps(whole.get_state()))
    again = stream(tokenizer, **options)
    next(again)
    again.set_state(state)
    assert ids(again, 20) == ids(whole, 20)
    with pytest.raises(ValueError, match="stream has seed = 1 and this run has 2"):
        stream(tokenizer, seed=2, **options).set_state(state)


def test_seed_decides(tokenizer):
    assert ids(stream(tokenizer), 9) == ids(stream(tokenizer), 9)
    assert ids(stream(tokenizer), 9) != ids(stream(tokenizer, seed=2), 9)


def test_tiers_order_each_kind(tokenizer):
    batches = ids(stream(tokenizer, order=choices.Order.TIERS), 5)
    assert [id for batch in batches for id in easy_of(batch)] == [12, 9, 6, 3, 0]
    others = [id for batch in batches for id in batch if id not in EASY]
    assert others[:10] == [14, 13, 11, 10, 8, 7, 5, 4, 2, 1]
    measured = stream(tokenizer, order=choices.Order.PASS_RATE)
    assert [prompt.example.id for prompt in measured.prompts] == list(range(15))
    measured.set_tiers(list(range(15)))
    assert ids(measured, 2) == [[1, 2, 4, 0], [5, 7, 8, 3]]
    assert [prompt.example.tier for prompt in measured.prompts] == list(range(15))


def test_long_prompts_are_dropped_from_both(tokenizer):
    made = stream(tokenizer, prompts_per_step=3, max_prompt_tokens=2)
    assert made.dropped == 5 and len(made.prompts) == 10
    assert {id for batch in ids(made, 20) for id in batch} == set(range(10))


def test_what_is_not_known_is_not_easy():
    one, two, none = (examples(1, hops)[0] for hops in (1, 2, 0))
    assert [is_easy(each, 1) for each in (one, two, none)] == [True, False, False]
    assert is_easy(two, 2) and not is_easy(Example(0, "", ""), 9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (examples(hops=2), "takes 1 that are easy, and there are 0"),
        (examples(hops=1), "takes 3 that are not easy, and there are 0"),
        ([Example(i, f"{i}?", "") for i in range(9)], 'question has a column "hops"'),
    ],
)
def test_a_kind_that_is_missing_is_refused(tokenizer, rows, message):
    with pytest.raises(ValueError, match=rf"easy_fraction is 0\.25.*{message}"):
        stream(tokenizer, rows)
