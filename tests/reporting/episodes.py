"""Rows of rollouts/ with the episodes of an agent, as the trainer writes them."""

import dataclasses
import functools

from grpo_jax import choices
from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Notice
from grpo_jax.reward_config import RewardConfig
from grpo_jax.rewards.base import Turn, turns_to_row
from grpo_jax.rewards.tags import tag_set, write_notice
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks import experts
from grpo_jax.tasks.world import world

TAGS = tag_set(choices.Tags.SEARCH)
# What a turn writes and what it is then shown; "" for nothing.
Step = tuple[Turn, str]


@functools.cache
def task():
    config = WorldConfig(
        entities=64,
        distractors=0,
        train_questions=16,
        validation_questions=1,
        test_questions=1,
    )
    return world(config, TAGS, RewardConfig())


def example(hops: int) -> Example:
    """The first question of the built-in world that needs as many documents."""
    return next(each for each in task().train if each.tier == hops)


def expert(question: Example) -> list[Step]:
    """What an expert does."""
    turns = task().experts[question.id]
    shown = [each.text for each in experts.segments(TAGS, turns) if each.observed]
    return list(zip(experts.record(TAGS, turns), [*shown, ""], strict=True))


def notice(turn: Turn, said: Notice) -> Step:
    return turn, write_notice(TAGS, said.value)


def row(question: Example, *steps: Step, **fields) -> dict:
    """The row of an episode, as JSON gives it back."""
    text, spans = "", []
    for turn, shown in steps:
        for origin, part in (("sampled", turn.text), ("observation", shown)):
            if part:
                spans.append([origin, len(text), len(text) + len(part)])
                text += part
    turns = [
        {**each, "document_ids": list(each["document_ids"])}
        for each in turns_to_row([turn for turn, _ in steps])["turns"]
    ]
    return {
        "step": 1,
        "group": 0,
        "sample": 0,
        "prompt": question.question,
        "completion": text,
        "reference": question.reference,
        "rewards": {"david": 1.0, "exact_match": 1.0},
        "reward": 1.0,
        "advantage": 0.5,
        "completion_tokens": len(text),
        "finished": True,
        "spans": spans,
        "turns": turns,
        "text_spans": spans,
        "evidence": [list(ids) for ids in question.columns["evidence"]],
        "gold_titles": list(question.columns["gold_titles"]),
        **fields,
    }


def asked(query: str, *ids: str, **fields) -> Turn:
    return dataclasses.replace(Turn(f"<search>{query}</search>", query, ids), **fields)
