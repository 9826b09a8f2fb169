"""What an expert did in the tokens of a run, with its documents or the run's."""

import dataclasses

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import encode_prompts
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.environments.base import Reply
from grpo_jax.records import Origin
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.base import Turn
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.experts import ExpertTurn
from grpo_jax.trainer import expert_rows
from grpo_jax.trainer.expert_rows import ExpertRows

TOLD = (Document("file", "", "told"),)
EXPERTS = {
    0: (
        ExpertTurn("hm", "who", TOLD),
        ExpertTurn("", "where", TOLD),
        ExpertTurn("so", answer="Bo"),
    ),
    1: (ExpertTurn("", "when", TOLD), ExpertTurn("", answer="now")),
    2: (ExpertTurn("", answer="yes"),),
}
EXAMPLES = [
    Example(id, f"{id}?", "", columns={"evidence": (("of who",), ("of where",))})
    for id in EXPERTS
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("search-characters")


class Library:
    """Answers a query with what it is of; fails while it is down."""

    stops = ("</search>",)

    def __init__(self):
        self.asked, self.down, self.told = [], set(), None

    def reset(self, examples, histories):
        self.told = [each.id for each in examples], list(histories)

    def step(self, rows, queries):
        self.asked.append(
            [(self.told[0][row], asks) for row, asks in zip(rows, queries, strict=True)]
        )
        return [
            Reply("down", failed=True)
            if query in self.down
            else Reply(
                f"<information>{query} is here</information>",
                "</information>",
                (f"of {query}",),
            )
            for query in queries
        ]

    def not_called(self, *_):
        raise AssertionError("a replay asks for replies and nothing else")

    read = notice = describe = take_metrics = close = not_called


def rows_of(tokenizer, library=None, reply_tokens=0, **experts):
    config = c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="search-characters"),
        task=c.TaskConfig(tags=choices.Tags.COMPACT),
        episode=c.EpisodeConfig(environment="search", reply_tokens=reply_tokens),
        experts=c.ExpertsConfig(below=1.0, **experts),
    ).seal()
    task = Task("t", EXAMPLES, [], [], {}, experts=EXPERTS)
    return ExpertRows(config, tokenizer, task, library)


def said(tokenizer, row):
    return [tokenizer.decode(piece) for piece in row.pieces]


def test_told_rows_are_what_the_file_says(tokenizer):
    library = Library()
    made = rows_of(tokenizer, library).of(EXAMPLES)
    assert said(tokenizer, made[0]) == [
        "<think>hm</think><search>who</search>",
        "<information>told</information>",
        "<search>where</search>",
        "<information>told</information>",
        "<think>so</think><answer>Bo</answer>",
    ]
    assert [piece[-1] == tokenizer.eos_ids[0] for piece in made[0].pieces] == [
        *[False] * 4,
        True,
    ]
    assert [turn.document_ids for turn in made[0].turns] == [("file",), ("file",), ()]
    assert made[0].log_probs == () and library.asked == []


def test_replayed_rows_are_shown_what_is_found(tokenizer):
    library = Library()
    rows = rows_of(tokenizer, library, replay=True)
    made = rows.of(EXAMPLES)
    assert said(tokenizer, made[0])[1::2] == [
        "<information>who is here</information>",
        "<information>where is here</information>",
    ]
    told = rows_of(tokenizer).of(EXAMPLES)
    assert made[0].pieces[::2] == told[0].pieces[::2]
    assert made[2] == told[2]
    assert made[0].turns == (
        Turn("<think>hm</think><search>who</search>", "who", ("of who",)),
        Turn("<search>where</search>", "where", ("of where",)),
        Turn("<think>so</think><answer>Bo</answer>"),
    )
    # All that ask at the same time are answered together, and once for good.
    assert library.told == ([0, 1, 2], [[], [], []])
    assert library.asked == [[(0, "who"), (1, "when")], [(0, "where")]]
    assert rows.of(EXAMPLES[:2]) == {id: made[id] for id in (0, 1)}
    assert len(library.asked) == 2


def test_a_failed_replay_is_tried_again(tokenizer):
    library = Library()
    library.down = {"who"}
    rows = rows_of(tokenizer, library, replay=True)
    assert list(rows.of(EXAMPLES)) == [1, 2]
    assert library.asked == [[(0, "who"), (1, "when")]]  # not what it asked next
    assert list(rows.of(EXAMPLES)) == [1, 2]
    library.down = set()
    assert list(rows.of(EXAMPLES)) == [0, 1, 2]
    assert library.asked[1:] == [[(0, "who")], [(0, "who")], [(0, "where")]]


def test_replies_are_cut_before_their_closing(tokenizer):
    made = rows_of(tokenizer, Library(), reply_tokens=5, replay=True).of(EXAMPLES)
    shown = "<information>who</information>"  # a token each of the tags
    assert said(tokenizer, made[0])[1] == shown and len(made[0].pieces[1]) == 5
    assert made[0].turns[0].document_ids == ("of who",)
    # Its closing alone is no reply.
    made = rows_of(tokenizer, Library(), reply_tokens=1, replay=True).of(EXAMPLES)
    assert list(made) == [2]


def test_log_probs_lie_at_the_tokens_they_are_of(tokenizer):
    [prompt] = encode_prompts(EXAMPLES[1:2], tokenizer, max_prompt_tokens=9)
    row = rows_of(tokenizer).of(EXAMPLES)[1]
    lengths = [len(piece) for piece in row.pieces]
    known = tuple(
        tuple(-(1 + turn + at / 100) for at in range(lengths[2 * turn]))
        for turn in range(2)
    )
    end = len(prompt.tokens) + sum(lengths)
    made = expert_rows.trajectory(prompt, row._replace(log_probs=known), end + 3)
    origins, behavior = made.origins[0], made.behavior_log_probs[0]
    assert made.tokens[0, :end].tolist() == [*prompt.tokens, *row.tokens]
    assert made.lengths == end and made.prompt_lengths == len(prompt.tokens)
    expected = [*known[0], *known[1]]
    np.testing.assert_allclose(behavior[origins == Origin.EXPERT], expected, rtol=1e-6)
    assert not behavior[origins != Origin.EXPERT].any()
    assert [
        int((origins == each).sum()) for each in (Origin.OBSERVATION, Origin.PAD)
    ] == [
        lengths[1],
        3,
    ]
    # Without any they are 0, and what does not fit is cut.
    plain = expert_rows.trajectory(prompt, row, end - 4)
    assert plain.tokens.shape == (1, end - 4) and plain.lengths == end - 4
    assert not plain.behavior_log_probs.any()


@pytest.mark.parametrize(("turn", "count"), [(0, 0), (1, 5)])
def test_log_probs_must_fit_the_tokens(tokenizer, turn, count):
    tokens = [len(piece) for piece in rows_of(tokenizer).of(EXAMPLES)[1].pieces[::2]]
    turns = [
        dataclasses.replace(each, log_probs=(-1.0,) * many)
        for each, many in zip(EXPERTS[1], tokens, strict=True)
    ]
    config = c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="search-characters"),
        task=c.TaskConfig(tags=choices.Tags.COMPACT),
    ).seal()
    task = Task("t", EXAMPLES, [], [], {}, experts={1: tuple(turns)})
    expert_rows.check_log_probs(config, tokenizer, task)
    turns[turn] = dataclasses.replace(turns[turn], log_probs=(-1.0,) * count)
    task = dataclasses.replace(task, experts={1: tuple(turns)})
    message = (
        rf"question 1, '1\?', has {count} log_probs in turn {turn} .* has "
        rf"{tokens[turn]} tokens .*tags=compact .*search-characters: .*score_experts"
    )
    with pytest.raises(ValueError, match=message):
        expert_rows.check_log_probs(config, tokenizer, task)
