"""Who pays, how much, and where beta goes."""

import dataclasses
import json

import numpy as np
import pytest

from grpo_jax import config as c
from grpo_jax.budget_config import BudgetConfig
from grpo_jax.data.examples import Example
from grpo_jax.records import Origin
from grpo_jax.rewards.base import Probe, Turn
from grpo_jax.trainer import metric_names
from grpo_jax.trainer.budget_control import NO_CHARGES, Budget
from grpo_jax.trainer.substitutes import Substitute
from tests.trainer.budgets import asked, completion, groups_of, table, trajectories

NAN = float("nan")
QUESTION = Example(id=0, question="", reference="", columns={"evidence": (("1",),)})


def config_of(**fields):
    return c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="characters"),
        rollout=c.RolloutConfig(group_size=2),
        episode=c.EpisodeConfig(environment="search", max_calls=4),
        reward=c.RewardConfig(weights={"accuracy": 1.0}),
        budget=BudgetConfig(**fields),
    ).seal()


def budget_of(**fields):
    return Budget(config_of(**fields), [QUESTION])


def charge(budget, episodes, right, step=1, substitutes=(), **columns):
    rows = groups_of(episodes, **columns)
    texts = trajectories([0] * len(rows), [1] * len(rows))
    return budget.charge(rows, texts, table(right), substitutes, step)


TWO, ONE, NONE = asked(("a", "1"), ("b", "2")), asked(("a", "1")), asked()


def test_only_right_rows_pay():
    budget = budget_of(call_cost=1.0, free_cost=0.5, initial_beta=0.4, max_cost=2.0)
    charges = charge(budget, [TWO, TWO, ONE, NONE, TWO, ONE], [1, 0, 0.2, 1, NAN, 0])
    # Right are rows 0, 2 and 3, with 1.5, 0.5 and 0 above what is free.
    np.testing.assert_allclose(charges.rows["penalty"], [0.3, 0, 0.1, 0, 0, 0])
    np.testing.assert_array_equal(charges.rows["cost"], [2, 2, 1, 0, 2, 1])
    assert charges.metrics == {
        "budget/cost_mean": pytest.approx(8 / 6),
        "budget/right_cost_mean": 1.0,
        "budget/over_fraction": pytest.approx(5 / 6),
        "budget/penalty_mean": pytest.approx(0.4 / 3),
        "budget/beta": 0.4,
    }


def test_calls_of_no_use_are_paid_for_by_right_rows():
    budget = budget_of(near_duplicate=0.9, redundancy_penalty=0.1)
    again = asked(("a b", "1"), ("b a", "1"), ("c", "1"))
    charges = charge(budget, [again, again, ONE, NONE], [1, 0, 1, 0])
    np.testing.assert_allclose(charges.rows["penalty"], [0.2, 0, 0, 0])
    assert "cost" not in charges.rows
    assert charges.metrics == {
        "budget/near_duplicate_fraction": pytest.approx(2 / 7),
        "budget/stale_call_fraction": pytest.approx(4 / 7),
        "budget/redundant_fraction": pytest.approx(4 / 7),
        "budget/redundancy_penalty_mean": pytest.approx(0.1),
    }
    both = budget_of(
        redundancy_penalty=0.1, call_cost=1.0, initial_beta=0.4, max_cost=4.0
    )
    charges = charge(both, [again, again], [1, 0])
    np.testing.assert_allclose(charges.rows["penalty"], [0.3 + 0.2, 0])


def test_rows_whose_retrieval_failed_are_left_out():
    budget = budget_of(
        call_cost=1.0,
        initial_beta=0.4,
        beta_rate=0.1,
        target_cost=1.0,
        near_duplicate=0.5,
    )
    failed = (Turn("t", "a", ("1",)), Turn("t", "a"), Turn("t", "b", failed=True))
    charges = charge(budget, [failed, ONE], [1, 1])
    np.testing.assert_allclose(charges.rows["penalty"], [0, 0.4])
    assert charges.metrics["budget/cost_mean"] == 1
    assert charges.metrics["budget/near_duplicate_fraction"] == 0
    assert budget.beta == 0.4
    charges = charge(budget, [failed, failed], [1, 1])  # nothing is known of costs
    assert np.isnan(charges.metrics["budget/cost_mean"]) and budget.beta == 0.4


def test_beta_follows_what_is_spent_within_its_bounds():
    fields = dict(
        call_cost=1.0, initial_beta=0.1, beta_rate=0.2, target_cost=1.0, max_beta=0.5
    )
    budget = budget_of(**fields)
    used = []
    for episodes in ([TWO, TWO], [TWO, ONE], [TWO, TWO], [ONE, ONE], [NONE, NONE]):
        used.append(charge(budget, episodes, [1, 0]).metrics["budget/beta"])
    np.testing.assert_allclose(used, [0.1, 0.3, 0.4, 0.5, 0.5])
    assert budget.beta == pytest.approx(0.3)
    for _ in range(3):
        charge(budget, [NONE, NONE], [1, 0])
    assert budget.beta == 0
    constant = budget_of(call_cost=1.0, initial_beta=0.1)
    for _ in range(3):
        charge(constant, [TWO, TWO], [1, 0])
    assert constant.beta == 0.1


def test_beta_goes_on_from_its_state():
    fields = dict(call_cost=1.0, initial_beta=0.1, beta_rate=0.03, target_cost=0.7)
    whole, first = budget_of(**fields), budget_of(**fields)
    steps = [[TWO, ONE], [NONE, ONE], [TWO, TWO], [ONE, NONE]]
    for number, episodes in enumerate(steps):
        second = budget_of(**fields)
        second.set_state(json.loads(json.dumps(first.get_state())))
        first = second
        wanted = charge(whole, episodes, [1, 1], number + 1)
        found = charge(first, episodes, [1, 1], number + 1)
        np.testing.assert_array_equal(found.rows["penalty"], wanted.rows["penalty"])
        assert found.metrics == wanted.metrics


def test_without_weights_nothing_is_charged_to_the_last_bit():
    budget = budget_of(
        call_cost=1.0,
        document_cost=0.3,
        token_cost=0.7,
        shared_calls=True,
        free_by_evidence=True,
        near_duplicate=0.9,
    )
    totals = np.array([0.1, 1 / 3, NAN, 0.0])
    evidence = (("1",),)
    charges = charge(budget, [TWO, ONE, TWO, NONE], [1, 1, 1, 0], evidence=evidence)
    np.testing.assert_array_equal(totals - charges.of(np.arange(4)), totals)
    assert charges.metrics["budget/cost_mean"] > 0
    np.testing.assert_array_equal(NO_CHARGES.of(np.arange(4)), np.zeros(4))


def substitute(place, turns, right, origin=Origin.SAMPLED):
    row = trajectories([0], [1])
    row.origins[0, 2:] = origin
    values = table([right])
    return Substitute(
        place, row, completion(turns, place // 2), values.values[0], 1.0, ""
    )


def test_places_of_the_update_pay_for_what_is_in_them():
    fields = dict(call_cost=1.0, initial_beta=0.4, max_cost=2.0)
    plain = charge(budget_of(**fields), [TWO, ONE, NONE, TWO], [1, 1, 1, 1])
    np.testing.assert_allclose(plain.of(np.array([2, 3, 0])), [0, 0.4, 0.4])
    others = [
        substitute(1, TWO, 1),
        substitute(2, TWO, 0),
        substitute(3, TWO, 1, Origin.EXPERT),
    ]
    charges = charge(
        budget_of(**fields), [TWO, ONE, NONE, TWO], [1, 1, 1, 1], substitutes=others
    )
    np.testing.assert_allclose(charges.of(np.arange(4)), [0.4, 0.4, 0, 0])
    np.testing.assert_array_equal(charges.rows["cost"], [2, 2, 2, NAN])
    # What is said of a step is of what the policy was asked to write.
    assert charges.metrics == plain.metrics
    # What a continuation took over was written too, at that.
    words = budget_of(token_cost=1000.0, initial_beta=0.4, max_cost=2.0)
    longer = substitute(0, ONE, 1)._replace(trajectory=trajectories([0], [3]))
    longer.trajectory.origins[0, 2:4] = Origin.FORCED
    texts = trajectories([0, 0], [1, 3])
    charges = words.charge(groups_of([ONE, ONE]), texts, table([1, 1]), [longer], 1)
    np.testing.assert_array_equal(charges.rows["cost"], [3, 3])
    assert charges.metrics["budget/cost_mean"] == 2


def test_calls_are_allowed_one_by_one():
    budget = budget_of(first_calls=2, call_every_steps=3)
    calls = [budget.max_calls(step) for step in range(1, 11)]
    assert calls == [2, 2, 2, 3, 3, 3, 4, 4, 4, 4]
    assert charge(budget, [NONE, TWO], [1, 1], step=4).metrics == {
        "budget/max_calls": 3.0
    }
    assert budget_of(call_cost=1.0).max_calls(1) == 4


def test_depth_that_follows_the_question():
    fields = dict(call_cost=1.0, free_by_evidence=True, initial_beta=0.4)
    evidence = (("1",),)
    charges = charge(budget_of(**fields), [NONE, TWO], [1, 1], evidence=evidence)
    np.testing.assert_allclose(charges.rows["penalty"], [0, 0.4])
    assert charges.metrics["budget/calls_above_evidence"] == 0.5
    assert charges.metrics["budget/calls_below_evidence"] == 0.5
    charges = charge(budget_of(**fields), [NONE, TWO], [1, 1])  # it is not known here
    assert np.isnan(charges.metrics["budget/calls_above_evidence"])


def test_training_says_which_episodes_ended_early():
    fields = dict(probe_tokens=4, exit_confidence=0.5, exit_in_training=True)
    sure, unsure = (
        (Turn("t", "a", probe=Probe("x", confidence, 0.1, 3)), Turn("a"))
        for confidence in (0.5, 0.4)
    )
    charges = charge(budget_of(**fields), [sure, unsure, NONE, unsure], [1, 0, 1, 0])
    assert charges.metrics == {
        "budget/exit_fraction": 0.25,
        "budget/probe_tokens": 2.25,
    }


def test_every_metric_can_be_watched():
    fields = dict(
        call_cost=1.0,
        free_by_evidence=True,
        near_duplicate=0.9,
        first_calls=1,
        probe_tokens=4,
        exit_confidence=0.5,
        exit_in_training=True,
    )
    evidence = (("1",),)
    charges = charge(budget_of(**fields), [ONE, TWO], [1, 0], evidence=evidence)
    known = metric_names.of_run(config_of(**fields))
    of_budgets = {name for name in known if name.startswith("budget/")}
    assert charges.metrics.keys() == of_budgets
    plain = metric_names.of_run(config_of())
    assert not any(name.startswith("budget/") for name in plain)


def test_gold_documents_must_be_known_to_be_free():
    plain = dataclasses.replace(QUESTION, columns={})
    config = config_of(call_cost=1.0, free_by_evidence=True)
    with pytest.raises(ValueError, match="free_by_evidence is True and no training"):
        Budget(config, [plain, plain])
    Budget(config, [plain, QUESTION])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(call_cost=-1.0), "config.budget.call_cost is -1.0: use at least 0"),
        (dict(max_cost=0.0), "config.budget.max_cost is 0.0: use a value above 0"),
        (dict(near_duplicate=1.5), "near_duplicate is 1.5: use a value from 0 to 1"),
        (
            dict(initial_beta=0.1),
            "config.budget.initial_beta is 0.1 and nothing has a cost",
        ),
        (dict(free_cost=0.1), "config.budget.free_cost is 0.1 and nothing has a cost"),
        (dict(target_cost=2.0), "target_cost is 2.0 and nothing has a cost"),
        (dict(token_cost=1.0, target_cost=2.0), "beta_rate is 0.0 and .*target_cost 2"),
        (dict(token_cost=1.0, beta_rate=2.0), "beta_rate is 2.0 and .*target_cost 0"),
        (
            dict(token_cost=1.0, initial_beta=0.6),
            "initial_beta is 0.6: use at most .*max_beta, 0.5",
        ),
        (dict(token_cost=1.0, shared_calls=True), "shared_calls is True and .*free"),
        (dict(token_cost=1.0, free_by_evidence=True), "free_by_evidence is True and"),
        (dict(call_every_steps=0), "call_every_steps is 0: use at least 1"),
        (dict(exit_confidence=1.1), "exit_confidence is 1.1: use a value from 0 to 1"),
        (dict(exit_confidence=0.5), "exit_confidence is 0.5 and .*probe_tokens 0"),
        (dict(exit_in_training=True), "exit_in_training is True and .*confidence 0"),
        (dict(first_calls=5), "first_calls is 5: use at most .*episode.max_calls, 4"),
        (
            dict(call_cost=1.0, right_reward="f1"),
            r"right_reward is 'f1': use one of .*\['accuracy'\]",
        ),
    ],
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        config_of(**fields)


@pytest.mark.parametrize(
    "name",
    [
        *("call_cost", "document_cost", "redundancy_penalty", "first_calls"),
        "probe_tokens",
    ],
)
def test_what_is_of_episodes_needs_them(name):
    config = dataclasses.replace(
        config_of(), episode=c.EpisodeConfig(), budget=BudgetConfig()
    )
    setattr(config.budget, name, 1)
    with pytest.raises(ValueError, match=rf"budget.{name} is 1 and .*environment is "):
        config.seal()
    config.budget = BudgetConfig(token_cost=1.0)
    config.seal()
