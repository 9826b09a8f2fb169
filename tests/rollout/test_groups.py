import numpy as np

from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rollout import groups


def encoded(tokenizer, id, question, reference):
    example = Example(id=id, question=question, reference=reference)
    return EncodedPrompt(example, question, tokenizer.encode(question))


def test_requests_keep_groups_together():
    tokenizer = load_tokenizer("characters")
    prompts = [encoded(tokenizer, 7, "1+1?", "2"), encoded(tokenizer, 3, "2+2?", "4")]
    requests = groups.group_requests(prompts, 3)
    assert [r.prompt_id for r in requests] == [7, 7, 7, 3, 3, 3]
    assert [r.sample for r in requests] == [0, 1, 2, 0, 1, 2]
    assert requests[3].prompt == tokenizer.encode("2+2?")


def test_completions_are_the_text_behind_the_prompt():
    tokenizer = load_tokenizer("characters")
    prompts = [encoded(tokenizer, 7, "1+1?", "2"), encoded(tokenizer, 3, "20+2?", "4")]
    end = tokenizer.eos_ids[0]
    texts = ["<answer>2</answer>", "<answer>9", "abc", ""]
    rows = []
    for index, text in enumerate(texts):
        tail = [end] if index in (0, 3) else []
        rows.append([*prompts[index // 2].tokens, *tokenizer.encode(text), *tail])
    width = max(map(len, rows))
    tokens = np.array([[*row, *[5] * (width - len(row))] for row in rows], np.int32)
    zeros = np.zeros(tokens.shape, np.float32)
    trajectories = Trajectories(
        tokens=tokens,
        origins=np.full(tokens.shape, Origin.SAMPLED, np.uint8),
        behavior_log_probs=zeros,
        kept_log_mass=zeros,
        prompt_lengths=np.array([4, 4, 5, 5], np.int32),
        lengths=np.array([len(row) for row in rows], np.int32),
        finished=np.array([True, False, False, True]),
    )
    seen = groups.completions(trajectories, prompts, tokenizer, 9)
    assert [each.text for each in seen] == texts
    assert [each.num_tokens for each in seen] == [4, 2, 3, 1]
    assert [each.finished for each in seen] == [True, False, False, True]
    assert [each.group for each in seen] == [0, 0, 1, 1]
    assert [each.reference for each in seen] == ["2", "2", "4", "4"]
    assert {each.max_tokens for each in seen} == {9}
    assert seen[2].prompt == "20+2?"
