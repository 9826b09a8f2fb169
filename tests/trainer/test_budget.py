"""What episodes cost, and which calls were of no use, by hand."""

import dataclasses

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.budget_config import BudgetConfig
from grpo_jax.rewards.base import Turn
from grpo_jax.trainer import budget
from tests.trainer.budgets import asked, completion, groups_of, trajectories

RANK = choices.CostPenalty.RANK


def test_a_cost_is_of_calls_and_of_tokens_shown_and_written():
    episodes = [
        asked("x", "y"),
        asked(),
        (Turn("t", malformed=True), Turn("a")),  # was told so, at no call
        asked("x"),
    ]
    rows = groups_of(episodes)
    texts = trajectories(shown=[100, 0, 20, 50], written=[30, 10, 40, 1000])
    config = BudgetConfig(call_cost=2.0, document_cost=10.0, token_cost=5.0)
    np.testing.assert_allclose(
        budget.costs(rows, texts, config),
        [4 + 1 + 0.15, 0.05, 0.2 + 0.2, 2 + 0.5 + 5],
    )
    for name, wanted in (
        ("call_cost", [2, 0, 0, 1]),
        ("document_cost", [0.1, 0, 0.02, 0.05]),
        ("token_cost", [0.03, 0.01, 0.04, 1]),
    ):
        alone = budget.costs(rows, texts, BudgetConfig(**{name: 1.0}))
        np.testing.assert_allclose(alone, wanted)


def test_equal_queries_of_a_group_are_one_call():
    rows = groups_of(
        [
            asked("who is a", "b"),
            asked(" who  is a ", "c"),
            asked("who is a", "b", "b"),  # of another group
            asked("Who is a"),  # to a cache this is another query
        ]
    )
    shared = budget.count_shared_calls(rows)
    np.testing.assert_allclose(shared, [0.5 + 1, 0.5 + 1, 1 + 0.5 + 0.5, 1])
    # Their sum is what a cache for each group lets through, in whatever order.
    assert shared[:2].sum() == 3 and shared[2:].sum() == 3
    np.testing.assert_allclose(budget.count_shared_calls(rows[::-1]), shared[::-1])
    config = BudgetConfig(call_cost=3.0, shared_calls=True)
    texts = trajectories(shown=[1] * 4, written=[1] * 4)
    np.testing.assert_allclose(budget.costs(rows, texts, config), 3 * shared)


def test_deeper_questions_have_more_for_nothing():
    rows = [
        completion(asked(), evidence=(("1",), ("2", "3"), ())),
        completion(asked(), evidence=()),
        completion(asked()),
    ]
    fixed = BudgetConfig(call_cost=2.0, free_cost=0.5)
    np.testing.assert_array_equal(budget.allowances(rows, fixed), [0.5] * 3)
    deep = dataclasses.replace(fixed, free_by_evidence=True)
    np.testing.assert_array_equal(budget.allowances(rows, deep), [6.5, 0.5, 0.5])


def test_shares_by_cost_are_cut_at_the_most():
    excess = np.array([0.0, 1.0, 3.0, 9.0, 1.0, 1.0])
    right = np.array([1, 1, 1, 1, 0, 1], bool)
    config = BudgetConfig(max_cost=4.0)
    np.testing.assert_array_equal(
        budget.shares(excess, right, config, 3), [0, 0.25, 0.75, 1, 0, 0.25]
    )


def test_shares_by_rank_are_among_right_rows_of_the_group():
    excess = np.array([0.0, 0.0, 2.0, 5.0, 0.1, 1, 7, 9, 1, 2, 2, 3])
    right = np.array([1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1], bool)
    shares = budget.shares(excess, right, BudgetConfig(penalty=RANK), 4)
    # Ties are equal, what is within the allowance is not ranked, who is alone is first.
    np.testing.assert_allclose(shares, [0, 0, 2 / 3, 1, 0, 0, 0, 0, 0, 1 / 3, 1 / 3, 1])


@pytest.mark.parametrize(
    ("turns", "threshold", "found"),
    [
        # a b c and a b d have two of four words in common.
        (asked(("a b c", ["1"]), ("A, b d", ["2"])), 0.5, (1, 0, 1)),
        (asked(("a b c", ["1"]), ("A, b d", ["2"])), 0.51, (0, 0, 0)),
        (asked(("a b", ["1"]), ("b a", ["2"])), 0.0, (0, 0, 0)),  # off
        (asked(("a b", ["1"]), ("b a", ["1"])), 1.0, (1, 1, 1)),  # one call, two flaws
        (asked(("a", ["1"]), ("b", ["1"]), ("c", ["2", "1"])), 0.9, (0, 1, 1)),
        (asked("a", ("b", ["1"])), 0.9, (0, 1, 1)),  # nothing was found
        (asked(("?", ["1"]), ("?", ["2"])), 0.5, (0, 0, 0)),  # no words at all
        # Not only the query just before.
        (asked(("a b", ["1"]), ("c", ["2"]), ("a b", ["3"])), 1.0, (1, 0, 1)),
        # What was not shown any more says nothing of documents.
        ((Turn("t", "a", ("1",)), Turn("t", "b")), 0.9, (0, 0, 0)),
        ((Turn("t", "a", ("1",)), Turn("t", "a")), 0.9, (1, 0, 1)),
        ((Turn("t", malformed=True), Turn("a")), 0.9, (0, 0, 0)),
        ((Turn("t", "a", failed=True),), 0.9, (0, 0, 0)),
    ],
)
def test_calls_of_no_use(turns, threshold, found):
    assert budget.redundancy(turns, threshold) == found
