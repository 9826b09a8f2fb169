import math
import pathlib

import numpy as np
import pytest

from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion


def completions(n):
    return [Completion("p", f"c{i}", "r", i, True, 0, {}) for i in range(n)]


def constant(*values):
    return lambda completions: list(values)


def test_totals_are_weighted_sums_over_the_rewards_that_apply():
    rewards = {
        "accuracy": (2.0, constant(1.0, None, 0.0, None)),
        "format": (0.5, constant(1, 1, None, None)),
        "watched": (0.0, constant(7.0, 7.0, 7.0, 7.0)),
    }
    table = scoring.score(completions(4), rewards)
    assert table.names == ("accuracy", "format", "watched")
    nan = math.nan
    np.testing.assert_array_equal(
        table.values, [[1, 1, 7], [nan, 1, 7], [0, nan, 7], [nan, nan, 7]]
    )
    np.testing.assert_array_equal(table.totals, [2.5, 0.5, 0.0, nan])
    assert table.values.dtype == table.totals.dtype == np.float64


def test_weights_may_be_negative_and_values_any_number():
    values = constant(True, np.float32(0.5), np.int64(2), np.bool_(True))
    table = scoring.score(completions(4), {"penalty": (-2.0, values)})
    np.testing.assert_array_equal(table.totals, [-2.0, -1.0, -4.0, -2.0])


def test_arrays_are_accepted_and_an_empty_batch_too():
    table = scoring.score(completions(3), {"a": (1.0, lambda c: np.arange(3.0))})
    np.testing.assert_array_equal(table.totals, [0, 1, 2])
    empty = scoring.score([], {"a": (1.0, lambda c: [])})
    assert empty.values.shape == (0, 1) and empty.totals.shape == (0,)
    assert np.isnan(scoring.score(completions(2), {}).totals).all()


def test_doubling_weights_doubles_totals_and_order_is_only_order():
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(3, 16))
    gaps = generator.random((3, 16)) < 0.3
    rewards = {
        name: (
            weight,
            constant(*[None if g else v for v, g in zip(c, gap, strict=True)]),
        )
        for name, weight, c, gap in zip(
            "abc", (1.0, 0.5, 2.0), columns, gaps, strict=True
        )
    }
    table = scoring.score(completions(16), rewards)
    doubled = {name: (2 * weight, each) for name, (weight, each) in rewards.items()}
    reversed_ = dict(reversed(rewards.items()))
    np.testing.assert_allclose(
        scoring.score(completions(16), doubled).totals, 2 * table.totals
    )
    np.testing.assert_allclose(
        scoring.score(completions(16), reversed_).totals, table.totals
    )


def test_a_reward_that_raises_is_named_and_chained():
    def broken(completions):
        raise KeyError("column")

    with pytest.raises(scoring.RewardError, match="'mine' raised KeyError") as caught:
        scoring.score(completions(2), {"mine": (1.0, broken)})
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "'mine' returned 1 values for 2 completions"),
        ([1.0] * 3, "'mine' returned 3 values for 2 completions"),
        ([1.0, math.nan], "'mine' returned nan for completion 1"),
        ([math.inf, 1.0], "'mine' returned inf for completion 0"),
        ([0.0, "1"], "'mine' returned '1' for completion 1"),
        ([[0.0], 1.0], r"'mine' returned \[0.0\] for completion 0"),
        ([1j, 1.0], "'mine' returned 1j for completion 0"),
        (None, "'mine' raised TypeError"),
    ],
)
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_what_is_not_one_finite_number_a_completion(values, message, weight):
    with pytest.raises(scoring.RewardError, match=message):
        scoring.score(completions(2), {"mine": (weight, lambda c: values)})


def test_weights_must_be_finite():
    with pytest.raises(ValueError, match="weights"):
        scoring.score(completions(1), {"a": (math.nan, constant(1.0))})


def test_a_builtin_or_a_path():
    builtin = {"accuracy": constant(1.0)}
    assert scoring.load_reward("accuracy", builtin) is builtin["accuracy"]
    loaded = scoring.load_reward("grpo_jax.rewards.format:boxed_format", builtin)
    assert loaded(completions(1)) == [0.0]


def test_a_module_of_the_working_directory(tmp_path: pathlib.Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [each for each in __import__("sys").path if each])
    source = "def short(completions):\n    return [-len(c.text) for c in completions]\n"
    (tmp_path / "my_rewards_of_this_test.py").write_text(source)
    (tmp_path / "needs_more.py").write_text("import no_such_dependency\n")
    (tmp_path / "broken_module.py").write_text("def f(:\n")
    loaded = scoring.load_reward("my_rewards_of_this_test:short", {})
    assert loaded(completions(2)) == [-2, -2]
    with pytest.raises(ValueError, match="imports 'no_such_dependency'"):
        scoring.load_reward("needs_more:f", {})
    with pytest.raises(ValueError, match="raised SyntaxError"):
        scoring.load_reward("broken_module:f", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", r"'acuracy'; did you mean 'accuracy'\? there are \['accuracy', 'f"),
        ("zzz", r"there are \['accuracy', 'format'\]"),
        ("no_such_package.rewards:f", "no module 'no_such_package'"),
        ("grpo_jax.rewards.nothing:f", "no module 'grpo_jax.rewards.nothing'"),
        ("grpo_jax.rewards.format:boxed_fromat", "did you mean 'boxed_format'"),
        ("grpo_jax.rewards.extraction:THINK_OPEN", "is a str"),
        (":f", "':f'"),
        ("math:", "has no attribute ''"),
    ],
)
def test_names_that_lead_nowhere(name, message):
    builtin = {"accuracy": constant(1.0), "format": constant(1.0)}
    with pytest.raises(ValueError, match=message):
        scoring.load_reward(name, builtin)
