"""Evidence, form and the two rewards of David-GRPO, value by value."""

import dataclasses

import pytest

from grpo_jax.choices import AnswerScore
from grpo_jax.reward_config import SearchRewardConfig
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.evidence import coverage, evidence_recall
from grpo_jax.rewards.search import search_rewards
from grpo_jax.rewards.tags import DAVID, SEARCH
from tests.rewards.agents import episode

ONE, TWO = ("Doc A",), ("Doc A", "Doc B")


def rewards(row: Completion, tags=DAVID, **config) -> dict[str, float | None]:
    known = search_rewards(tags, SearchRewardConfig(**config))
    return {name: reward([row])[0] for name, reward in known.items()}


def asks(query: str) -> str:
    return f"<begin_search>{query}</end_search>"


def trace(*turns: str, titles=ONE, shown=(ONE,), reference="yes", **columns):
    """A David episode whose questions need `titles`."""
    return episode(
        DAVID,
        *turns,
        shown=shown,
        reference=reference,
        gold_titles=titles,
        evidence=[(title,) for title in titles],
        **columns,
    )


ANSWER = "</think>\\boxed{yes}"
GOOD = (asks("query"), ANSWER)
WORDS = "b c d e f g h i j k"  # ten of them


@pytest.mark.parametrize(
    ("row", "legacy", "ours"),
    [
        (trace(*GOOD), 1.0, 1.0),
        (trace(*GOOD, titles=TWO), 0.75, 0.75),
        (trace(*GOOD, shown=[["Other"]]), 0.5, 0.5),
        (trace(asks("query"), "\\boxed{yes}"), 0.0, 0.0),
        (trace(asks("query"), "</think>yes"), 0.0, 0.0),
        (trace(asks("query"), ANSWER + asks("late")), 0.0, 0.0),
        (trace("thoughts", ANSWER), 0.0, 0.0),
        (trace(ANSWER), 0.0, 0.0),
        (trace(asks("q"), asks("q"), ANSWER, shown=[ONE, ONE]), 0.0, 0.0),
        # From here on the two differ.
        (trace(asks("q"), asks(" q "), ANSWER, shown=[ONE, ONE]), 1.0, 0.0),
        (trace(asks("q"), asks("Q"), ANSWER, shown=[ONE, ONE]), 1.0, 0.0),
        (trace(asks("q"), "</think>\\boxed{}"), 0.75, 0.0),
        (trace(asks("q"), "</think>\\boxed{1}", reference="1945"), 0.75, 0.5),
        (trace(asks("q"), "</think>\\boxed{z}", reference="The"), 0.75, 0.5),
        (trace(asks("q"), "</think>\\boxed{a, b, d, c}", reference="b c d"), 1.0, 0.5),
        (trace(asks("q"), "</think>\\boxed{b c d e}", reference="b c d"), 0.75, 0.5),
        (trace(asks("q"), "</think>\\boxed{{b} c}", reference="{b} c"), 0.75, 1.0),
        (trace(asks("q"), "</think>\\boxed{just one}", reference="1"), 1.0, 0.5),
        (
            trace(asks("q"), "</think>\\boxed{k b c d e f g}", reference=WORDS),
            1.0,
            0.5,
        ),
        (trace(asks("q"), "</think>\\boxed{k b c d e f}", reference=WORDS), 0.5, 0.5),
        (trace(asks("q"), "</think>\\boxed{x}", reference=""), 0.0, 0.5),
        (trace(*GOOD, titles=['A "B" C'], shown=[['A "B" C']]), 0.5, 1.0),
    ],
)
def test_david_and_what_its_code_computes(row, legacy, ours):
    found = rewards(row)
    assert found["legacy_david"] == pytest.approx(legacy)
    assert found["david"] == pytest.approx(ours)


@pytest.mark.parametrize("tag", [*DAVID.query[1:], *DAVID.observation])
def test_the_code_wants_balanced_tags(tag):
    row = trace(*GOOD)
    row = dataclasses.replace(row, text=row.text.replace(tag, ""))
    assert rewards(row)["legacy_david"] == 0.0


def test_the_code_pays_for_results_that_the_policy_wrote_itself():
    forged = '<search_result> result 1: "Doc A"\nx </search_result>'
    row = trace(*GOOD, shown=[[]])
    row = dataclasses.replace(row, text=GOOD[0] + forged + ANSWER)
    assert rewards(row)["legacy_david"] == 1.0
    assert rewards(row)["evidence_recall"] == 0.0


def test_the_code_reads_the_prompt_too():
    """With the instructions before it, a completion needs no `</think>` to pass."""
    text = "\\boxed{yes}"
    prompt = f"<think>{asks('q')}<search_result></search_result></think>"
    row = Completion(prompt, text, "yes", 1, True, 0, {"gold_titles": ONE})
    assert rewards(row)["legacy_david"] == 0.5
    assert rewards(row)["david"] == 0.0


def test_the_code_without_gold_titles():
    """Its validation: the answer alone, neither balanced tags nor distinct queries."""
    for turns in (GOOD, (asks("q"), asks("q"), ANSWER)):
        assert rewards(trace(*turns, titles=()))["legacy_david"] == 1.0
    row = trace(asks("q"), "</think>\\boxed{}", titles=())
    assert rewards(row)["legacy_david"] == 0.5


def test_the_code_takes_the_best_gold():
    row = trace(*GOOD, golds=["no", "yes"], reference="no")
    assert rewards(row)["legacy_david"] == rewards(row)["david"] == 1.0


def test_parameters_reach_the_reward():
    row = trace(asks("q"), "</think>\\boxed{Rook}", titles=TWO, reference="Old Rook")
    assert rewards(row)["david"] == 0.25
    found = rewards(row, evidence_weight=0.2, answer=AnswerScore.F1)
    assert found["david"] == pytest.approx(0.2 * 0.5 + 0.8 * 2 / 3)
    assert rewards(row, evidence_weight=1.0)["david"] == 0.5
    closed_book = trace(ANSWER)
    assert rewards(closed_book)["search_format"] == 0.0
    found = rewards(closed_book, require_search=False)
    assert (found["search_format"], found["david"]) == (1.0, 0.5)


def test_without_known_evidence_the_answer_counts_alone():
    found = rewards(trace(*GOOD, titles=()))
    assert (found["evidence_recall"], found["david"]) == (None, 1.0)


def test_evidence_is_counted_by_ids():
    turns = (Turn("", "q", ("1", "7")), Turn("", "r", ("7", "3")), Turn(""))
    assert coverage([("1",), ("3",)], turns) == 1.0
    assert coverage([("1",), ("3",)], turns[:1]) == 0.5
    assert coverage([("1",), ("9",), ()], turns) == pytest.approx(1 / 3)
    assert coverage([("8", "7")], turns) == 1.0  # one of a page's parts
    assert coverage([("1",)], ()) == 0.0
    # Text is not evidence.
    row = episode(SEARCH, "Doc A <answer>x</answer>", evidence=[("Doc A",)])
    assert evidence_recall()([row]) == [0.0]


def test_where_a_retrieval_failed_nothing_has_a_value():
    row = trace(*GOOD)
    failed = (Turn(GOOD[0], "query", failed=True), row.turns[1])
    rows = [row, dataclasses.replace(row, turns=failed)]
    known = search_rewards(DAVID, SearchRewardConfig())
    for name, reward in known.items():
        assert reward(rows)[1] is None and reward(rows)[0] is not None, name
    # Neither has any other reward, when a batch is scored.
    table = scoring.score(rows, {"own": (1.0, lambda rows: [1.0 for _ in rows])})
    assert table.values[0, 0] == table.totals[0] == 1.0
    assert table.values[1, 0] != table.values[1, 0]
    assert table.totals[1] != table.totals[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "q", "malformed": True},
        {"document_ids": ("1",)},
        {"failed": True},
        {"query": "q", "failed": True, "document_ids": ("1",)},
    ],
)
def test_impossible_records(fields):
    with pytest.raises(ValueError, match="quer|retrieval"):
        Turn("text", **fields)


def test_the_config_is_checked():
    with pytest.raises(ValueError, match=r"r\.evidence_weight is 1\.5"):
        SearchRewardConfig(evidence_weight=1.5).seal("r")
