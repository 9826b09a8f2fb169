"""Limits in tokens."""

from grpo_jax.curation.lengths import lengths
from grpo_jax.data.tokenizer import load_tokenizer
from tests.curation.helpers import problem, reasons


def test_limits():
    tokenizer = load_tokenizer("characters")
    rows = [
        problem("1+1", solution="2"),
        problem("1+1+1", solution="2"),
        problem("1+1", solution="1+1=2"),
        problem("1+1", solution=""),
    ]
    limits = {"max_prompt_tokens": 4, "max_solution_tokens": 3}
    verdicts = lengths(rows, tokenizer, **limits)
    assert reasons(verdicts) == ["", "long_prompt", "long_solution", ""]
    assert verdicts[1].evidence == "5 tokens"
    assert not any(lengths(rows, tokenizer, max_prompt_tokens=5, max_solution_tokens=0))


def test_what_a_tokenizer_cannot_write():
    limits = {"max_prompt_tokens": 4, "max_solution_tokens": 4}
    verdicts = lengths([problem("求")], load_tokenizer("characters"), **limits)
    assert reasons(verdicts) == ["no_token"]
