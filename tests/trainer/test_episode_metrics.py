"""What agents did, against episodes written and counted by hand."""

import itertools
import math

import numpy as np
import pytest

from grpo_jax import config as c
from grpo_jax import episode_config
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import episode_metrics, metric_names

TWO = {"evidence": (("a",), ("b", "b2")), "hops": 2}
ANSWER = Turn("so x")


def ask(query: str, *ids: str) -> Turn:
    return Turn(query, query, ids)


def completion(*turns: Turn, tokens: int = 10, finished=True, **columns) -> Completion:
    return Completion(
        *("q", "", "gold", 99, finished, 0),
        columns=columns,
        turns=turns,
        sampled_tokens=tokens,
    )


def metrics(*rows: Completion, right=(), max_calls: int = 3) -> dict[str, float]:
    judged = np.array(right if len(right) else [np.nan] * len(rows), float)
    found = episode_metrics.metrics(rows, judged, max_calls)
    assert all(math.isfinite(value) for value in found.values())
    assert all(name.startswith("episode/") for name in found)
    return {name.removeprefix("episode/"): value for name, value in found.items()}


def test_calls_and_queries():
    found = metrics(
        completion(ask("who", "1", "2"), ask("Who ", "2", "3"), ANSWER),
        completion(Turn("x", malformed=True), ANSWER),
        completion(Turn("x", "where", failed=True)),
        completion(ANSWER),
    )
    assert {name: found[name] for name in found if "_turn_" not in name} == {
        "calls_mean": 0.75,
        "calls_max": 2.0,
        "no_call_fraction": 0.5,
        "malformed_fraction": 0.25,
        "repeated_query_fraction": 1 / 3,
        "near_duplicate_fraction": 1 / 3,
        "new_document_fraction": 0.75,
        "failed_fraction": 0.25,
        "refused_fraction": 0.0,
    }


def test_without_a_call_only_what_applies_is_said():
    found = metrics(completion(ANSWER))
    assert {name for name in found if "_turn_" not in name} == {
        *("calls_mean", "calls_max", "no_call_fraction", "failed_fraction"),
        "refused_fraction",
    }


@pytest.mark.parametrize(
    ("first", "second", "near"),
    [
        ("a b c d e f g h i", "A b c d e f g h i j!", True),  # 9 of 10
        ("a b c d e f g h", "a b c d e f g h i", False),  # 8 of 9
        ("mayor of Rook", "Rook: mayor of?", True),
        ("mayor of Rook", "mayor of Mara", False),
        ("?", "!", True),
    ],
)
def test_queries_that_are_nearly_the_same(first, second, near):
    found = metrics(completion(ask(first), ask("other"), ask(second)))
    assert found["near_duplicate_fraction"] == (1 / 3 if near else 0.0)
    assert found["repeated_query_fraction"] == 0.0


def test_coverage_and_what_calls_brought():
    found = metrics(
        # Found one, nothing, the other in its second form, and asked once more.
        completion(ask("1", "a"), ask("2", "x"), ask("3", "b2"), ask("4", "a"), **TWO),
        # Nothing at all: no call is useful and none comes after a peak.
        completion(ask("1", "x"), ask("2"), ANSWER, **TWO),
        # Half of it, and then two calls for nothing.
        completion(ask("1", "b", "b2"), ask("2"), ask("3"), ANSWER, **TWO),
        # Not known, or not the policy's fault.
        completion(ask("1", "a"), ANSWER),
        completion(ask("1", "a"), Turn("2", "2", failed=True), **TWO),
        max_calls=4,
    )
    assert found["coverage_mean"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["useful_call_fraction"] == pytest.approx(3 / 9)
    assert found["surplus_call_fraction"] == pytest.approx(1 / 9)
    assert found["over_search_fraction"] == pytest.approx(2 / 3)
    gains = [found[f"gain_turn_{turn}"] for turn in range(1, 5)]
    assert gains == pytest.approx([1 / 3, 0, 1 / 4, 0])
    assert "premature_stop_fraction" not in found


def test_a_malformed_turn_gains_nothing_and_is_no_call():
    found = metrics(
        completion(Turn("x", malformed=True), ask("1", "a", "b"), ANSWER, **TWO)
    )
    assert "gain_turn_1" not in found and found["gain_turn_2"] == 1.0
    assert found["over_search_fraction"] == 0.0


def test_episodes_that_stop_too_early():
    half, whole = ask("1", "a"), ask("1", "a", "b")
    cases = [
        (completion(half, ANSWER, **TWO), 0, True),
        (completion(ANSWER, **TWO), 0, True),
        # Right; with all that is needed; cut; with no call left; without room to go on.
        (completion(half, ANSWER, **TWO), 1, False),
        (completion(whole, ANSWER, **TWO), 0, False),
        (completion(half, ANSWER, finished=False, **TWO), 0, False),
        (completion(half, half, Turn("more"), ANSWER, **TWO), 0, False),
        (completion(half, finished=False, **TWO), 0, False),
    ]
    for row, right, early in cases:
        found = metrics(row, right=[right], max_calls=2)
        assert found["premature_stop_fraction"] == early, row
    unknown = completion(half, ANSWER), completion(half, ANSWER, **TWO)
    found = metrics(*unknown, right=[0, np.nan])
    assert "premature_stop_fraction" not in found


def test_what_turns_did():
    found = metrics(
        completion(ask("1"), ask("2"), ANSWER),
        completion(ask("1"), Turn("x", malformed=True), ANSWER),
        completion(ask("1"), ANSWER, finished=False),
        completion(ANSWER),
        completion(ask("1"), ask("2"), Turn("3"), ANSWER),
        max_calls=2,
    )
    turns = {
        turn: [found[f"{name}_turn_{turn}"] for name in episode_metrics.ACTIONS]
        for turn in (1, 2)
    }
    assert turns[1] == pytest.approx([4 / 5, 0, 1 / 5, 0])
    assert turns[2] == pytest.approx([2 / 4, 1 / 4, 0, 1 / 4])
    assert "search_turn_3" not in found
    assert found["refused_fraction"] == 1 / 5


def test_by_hops_and_calls():
    found = metrics(
        completion(ANSWER, tokens=4, hops=1),
        completion(ask("1"), ANSWER, tokens=8, hops=1),
        completion(ask("1"), ask("2"), ANSWER, tokens=30, hops=3),
        completion(ask("1"), ANSWER, tokens=7, hops=4),
        completion(ask("1"), ask("2"), ANSWER, tokens=9, hops=6),
        completion(ANSWER, tokens=99, hops=0),
        right=[1, 0, 1, np.nan, 1, 1],
    )
    assert [found.get(f"calls_hops_{hops}") for hops in (1, 2, 3, 4)] == [
        *(0.5, None, 2.0, 1.5)
    ]
    assert [found.get(f"tokens_hops_{hops}") for hops in (1, 3, 4)] == [6.0, 30.0, 8.0]
    assert [found.get(f"right_hops_{hops}") for hops in (1, 3, 4)] == [0.5, 1.0, 1.0]
    assert [found.get(f"right_calls_{calls}") for calls in range(4)] == [
        *(1.0, 0.0, 1.0, None)
    ]
    # Calls 0 1 2 1 2 have ranks 1 2.5 4.5 2.5 4.5; hops 1 1 3 4 4: 1.5 1.5 3 4.5 4.5.
    a, b = np.array([1, 2.5, 4.5, 2.5, 4.5]), np.array([1.5, 1.5, 3, 4.5, 4.5])
    a, b = a - 3, b - 3
    expected = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
    assert found["calls_hops_spearman"] == pytest.approx(expected)


def test_no_correlation_without_a_spread():
    once, never = (ask("1"), ANSWER), (ANSWER,)
    for rows in (
        (completion(*once, hops=1), completion(*never, hops=1)),
        (completion(*once, hops=1), completion(*once, hops=2)),
        (completion(*once, hops=1), completion(*never, hops=0)),
    ):
        assert "calls_hops_spearman" not in metrics(*rows)


def table(*columns: str) -> RewardTable:
    values = np.arange(2 * len(columns), dtype=float).reshape(2, -1) % 2
    return RewardTable(columns, values, values.sum(axis=1))


def config(**changes) -> c.TrainConfig:
    options = {
        "policy": c.PolicyConfig(tokenizer="characters"),
        "task": c.TaskConfig(name="world"),
        "episode": episode_config.EpisodeConfig(environment="search", max_calls=2),
    }
    return c.TrainConfig(**{**options, **changes}).seal()


def test_a_step_takes_its_rewards_word_for_what_is_right():
    rows = [completion(ANSWER, **TWO), completion(ask("1", "a"), ANSWER, **TWO)]
    for names, right in (
        (("exact_match", "format"), (0.0, 0.0)),
        (("exact_match", "format", "accuracy"), (0.0, 1.0)),
        (("format", "accuracy", "exact_match"), (1.0, 0.0)),
        (("format",), (None, None)),
    ):
        found = episode_metrics.of_step(rows, table(*names), config())
        got = tuple(found.get(f"episode/right_calls_{calls}") for calls in (0, 1))
        assert got == right, names


def test_every_name_is_known_and_every_known_name_can_be():
    judged = c.RewardConfig(weights={"david": 1.0, "exact_match": 0.0})
    every = itertools.product(
        [ask("1", "a"), ask("2", "b"), Turn("x", malformed=True), ANSWER], repeat=2
    )
    rows = [completion(*turns, ANSWER, **TWO) for turns in every]
    rows += [completion(ANSWER, hops=hops) for hops in (1, 2, 3, 4)]
    right = np.zeros(len(rows))
    made = episode_metrics.metrics(rows, right, 2).keys()
    names = {
        name
        for name in metric_names.of_run(config(reward=judged))
        if name.startswith("episode/")
    }
    assert made == names
    fewer = metric_names.of_run(config(reward=c.RewardConfig({"david": 1.0})))
    assert names - fewer == {
        "episode/premature_stop_fraction",
        *(f"episode/right_hops_{hops}" for hops in (1, 2, 3, 4)),
        *(f"episode/right_calls_{calls}" for calls in (0, 1, 2)),
    }
    plain = metric_names.of_run(config(task=c.TaskConfig()))
    assert "episode/search_turn_2" in plain
    assert not any("hops" in name or "gain" in name for name in plain)
    own = c.TaskConfig(name="mine:task")
    assert names <= metric_names.of_run(config(task=own, reward=judged))
