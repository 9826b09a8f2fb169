"""Batches are full, shuffled, complete, and resume exactly."""

import collections
import dataclasses
import itertools
import json

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.data import pipeline
from grpo_jax.data.examples import Example
from grpo_jax.data.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("characters")


def examples(count: int = 10) -> list[Example]:
    return [Example(id=i, question=f"{i}?", reference=str(i)) for i in range(count)]


def stream(tokenizer, count: int = 10, **options) -> pipeline.PromptStream:
    options = {"prompts_per_step": 4, "seed": 1, "max_prompt_tokens": 8, **options}
    return pipeline.PromptStream(examples(count), tokenizer, **options)


def ids(batches, count: int) -> list[list[int]]:
    return [
        [prompt.example.id for prompt in batch]
        for batch in itertools.islice(batches, count)
    ]


def test_encoded_prompt_is_what_the_tokenizer_renders(tokenizer):
    options = {"system_prompt": "S", "template": "Q {question}"}
    (prompt,) = pipeline.encode_prompts(
        examples(1), tokenizer, max_prompt_tokens=99, **options
    )
    assert prompt.text == tokenizer.render("0?", **options) == "S\n\nQ 0?"
    assert prompt.tokens == tokenizer.encode_prompt("0?", **options)
    assert prompt.example == examples(1)[0]


def test_batches_are_full_distinct_and_shuffled(tokenizer):
    batches = ids(stream(tokenizer), 50)
    assert all(len(batch) == len(set(batch)) == 4 for batch in batches)
    epochs = [batches[i] + batches[i + 1] for i in range(0, 50, 2)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
    counts = collections.Counter(itertools.chain(*batches))
    assert set(counts) == set(range(10))  # what one epoch leaves out, others take


def test_more_may_be_taken_each_once_in_a_step(tokenizer):
    plain, batches = stream(tokenizer), stream(tokenizer)
    order = sum(ids(plain, 6), [])
    first = [prompt.example.id for prompt in next(batches)]
    more = [prompt.example.id for prompt in batches.take(3, without=first)]
    assert first + more == order[:7]
    # The next batch begins where the step ended, and may reach into the next epoch,
    # whose prompts are passed over where it has them.
    following = [prompt.example.id for prompt in next(batches)]
    assert following == list(dict.fromkeys(order[7:]))[:4]
    resumed = stream(tokenizer)
    resumed.set_state(json.loads(json.dumps(batches.get_state())))
    assert ids(resumed, 5) == ids(batches, 5)


def test_no_more_is_taken_than_there_is(tokenizer):
    batches = stream(tokenizer, 5)
    first = [prompt.example.id for prompt in next(batches)]
    more = [prompt.example.id for prompt in batches.take(4, without=first)]
    assert sorted(first + more) == [0, 1, 2, 3, 4]
    assert batches.take(4, without=range(5)) == []


def test_seed_decides(tokenizer):
    assert ids(stream(tokenizer), 9) == ids(stream(tokenizer), 9)
    assert ids(stream(tokenizer), 9) != ids(stream(tokenizer, seed=2), 9)


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 7])
def test_resumed_stream_equals_the_uninterrupted_one(tokenizer, taken):
    uninterrupted = ids(stream(tokenizer), 20)  # two batches an epoch
    first = stream(tokenizer)
    head = ids(first, taken)
    state = json.loads(json.dumps(first.get_state()))
    second = stream(tokenizer)
    next(second)
    second.set_state(state)
    assert head + ids(second, 20 - taken) == uninterrupted
    assert ids(first, 20 - taken) == uninterrupted[taken:]


@pytest.mark.parametrize(
    "options", [{"seed": 2}, {"prompts_per_step": 5}, {"count": 11}]
)
def test_state_of_another_stream_is_refused(tokenizer, options):
    name = {"count": "prompts"}.get(*options, *options)
    with pytest.raises(ValueError, match=f"stream has {name} = .* this run has"):
        stream(tokenizer, **options).set_state(stream(tokenizer).get_state())


def test_long_prompts_are_dropped_before_batching(tokenizer):
    made = stream(tokenizer, count=13, max_prompt_tokens=2)  # "10?" has three tokens
    assert made.dropped == 3
    assert len(made.prompts) == 10
    batches = ids(made, 30)
    assert all(len(batch) == 4 for batch in batches)
    assert set(itertools.chain(*batches)) == set(range(10))


def test_long_prompt_is_an_error_that_names_row_length_and_flag(tokenizer):
    message = r"row 10 has 3 tokens and config\.rollout\.max_prompt_tokens is 2"
    with pytest.raises(ValueError, match=message):
        stream(tokenizer, 13, max_prompt_tokens=2, overlong=choices.Overlong.ERROR)


@pytest.mark.parametrize(("limit", "left"), [(1, 0), (2, 10)])
def test_too_few_prompts_left(tokenizer, limit, left):
    message = rf"prompts_per_step is 11 and only {left} of 13 .*max_prompt_tokens"
    with pytest.raises(ValueError, match=message):
        stream(tokenizer, 13, prompts_per_step=11, max_prompt_tokens=limit)


def test_empty_prompt(tokenizer):
    empty = [Example(id=7, question="", reference="")]
    with pytest.raises(ValueError, match="row 7 has no token"):
        pipeline.encode_prompts(empty, tokenizer, max_prompt_tokens=8)


def demonstrations(tokenizer, count: int = 5, **options):
    prompts = pipeline.encode_prompts(examples(count), tokenizer, max_prompt_tokens=8)
    completions = ["<answer>" + "7" * i + "</answer>" for i in range(count)]
    options = {"batch_size": 4, "seed": 3, **options}
    return pipeline.demonstration_batches(prompts, completions, tokenizer, **options)


def test_demonstrations_are_prompt_completion_end_and_padding(tokenizer):
    batch = next(demonstrations(tokenizer))
    assert batch.tokens.shape == (4, 2 + 2 + 4 + 1)  # the longest of all five
    assert batch.tokens.dtype == batch.lengths.dtype == np.int32
    assert batch.prompt_lengths.tolist() == [2] * 4
    for tokens, length in zip(batch.tokens, batch.lengths, strict=True):
        text = tokenizer.decode(tokens)
        number = int(text[0])
        assert text == f"{number}?<answer>{'7' * number}</answer>"
        assert length == 2 + 2 + number + 1
        assert tokens[length - 1] == tokenizer.eos_ids[0]
        assert (tokens[length:] == tokenizer.pad_id).all()


@pytest.mark.parametrize("batch_size", [3, 4, 12])
def test_every_demonstration_occurs_once_an_epoch(tokenizer, batch_size):
    batches = demonstrations(tokenizer, batch_size=batch_size)
    tokens = np.concatenate([next(batches).tokens for _ in range(5)])
    for epoch in tokens[: len(tokens) // 5 * 5].reshape(-1, 5, tokens.shape[1]):
        assert len(np.unique(epoch, axis=0)) == 5


def test_demonstrations_resume_at_any_batch(tokenizer):
    batches = list(itertools.islice(demonstrations(tokenizer), 9))
    for first in (0, 1, 5, 8):
        resumed = next(demonstrations(tokenizer, first_batch=first))
        np.testing.assert_array_equal(resumed.tokens, batches[first].tokens)
        np.testing.assert_array_equal(resumed.lengths, batches[first].lengths)
    other = next(demonstrations(tokenizer, seed=4))
    assert (other.tokens != batches[0].tokens).any()


def test_completions_must_match_prompts(tokenizer):
    prompts = pipeline.encode_prompts(examples(2), tokenizer, max_prompt_tokens=8)
    with pytest.raises(ValueError, match="2 prompts and 1 completions"):
        pipeline.demonstration_batches(prompts, ["1"], tokenizer, batch_size=1, seed=0)


def tiered(tokenizer, tiers, **options) -> pipeline.PromptStream:
    rows = [
        dataclasses.replace(example, tier=tier)
        for example, tier in zip(examples(len(tiers)), tiers, strict=True)
    ]
    options = {"prompts_per_step": 3, "seed": 1, "max_prompt_tokens": 8, **options}
    return pipeline.PromptStream(rows, tokenizer, **options)


def test_tiers_come_from_the_easiest_to_the_hardest_in_every_epoch(tokenizer):
    tiers = [2, 0, 1, 0, 2, 1, 0]
    batches = ids(tiered(tokenizer, tiers, order=choices.Order.TIERS), 7)
    epoch = [1, 3, 6, 2, 5, 0, 4]
    assert sum(batches, []) == epoch * 3
    assert all(len(set(batch)) == 3 for batch in batches)


def test_the_order_of_the_file_is_that_of_every_epoch(tokenizer):
    tiers = [2, 0, 1, 0, 2, 1, 0]
    batches = ids(tiered(tokenizer, tiers, order=choices.Order.FILE), 7)
    assert sum(batches, []) == [*range(7)] * 3


def test_measured_tiers_replace_those_of_the_data(tokenizer):
    stream = tiered(tokenizer, [0, 1, 2, 3], order=choices.Order.PASS_RATE)
    stream.set_tiers([3, 0, 3, 1])
    assert sum(ids(stream, 4), []) == [1, 3, 0, 2] * 3
    assert [prompt.example.tier for prompt in stream.prompts] == [3, 0, 3, 1]


def test_a_stream_of_tiers_resumes_and_refuses_the_state_of_another_order(tokenizer):
    tiers = [2, 0, 1, 0, 2, 1, 0]
    whole = tiered(tokenizer, tiers, order=choices.Order.TIERS)
    next(whole)
    state = json.loads(json.dumps(whole.get_state()))
    again = tiered(tokenizer, tiers, order=choices.Order.TIERS)
    again.set_state(state)
    assert ids(again, 4) == ids(whole, 4)
    with pytest.raises(ValueError, match="has order = tiers and this run has shuffled"):
        tiered(tokenizer, tiers).set_state(state)
