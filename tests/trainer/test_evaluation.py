import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.trainer import evaluation
from grpo_jax.trainer import run as runs
from tests import helpers


@pytest.fixture(scope="module")
def run():
    config = c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature", tokenizer="characters", dtype=choices.Dtype.FLOAT32
        ),
        task=c.TaskConfig(
            arithmetic=ArithmeticConfig(
                train_problems=16, validation_problems=8, test_problems=8
            )
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=8,
            group_size=4,
            max_prompt_tokens=12,
            max_completion_tokens=12,
            chunk_steps=4,
        ),
        evaluation=c.EvaluationConfig(samples=4, validation_problems=6),
    ).seal()
    run = runs.build(config)
    model = dataclasses.replace(run.model, mesh=helpers.one_device_mesh())
    return dataclasses.replace(run, model=model)


@pytest.fixture(scope="module")
def view(run):
    params = run.model.initial_params()
    params["embedding"]["table"] = 8 * params["embedding"]["table"]
    return helpers.view_of(run.model.arch, params)


def parity(completions):
    """Correct where the first character has an even code; ungraded where divisible."""
    codes = [ord((row.text or "0")[0]) for row in completions]
    return [None if code % 3 == 0 else float(code % 2 == 0) for code in codes]


def graded_by(run, reward):
    task = dataclasses.replace(run.task, rewards={"accuracy": reward})
    return dataclasses.replace(run, task=task, rewards={})


def evaluated(run, view, prompts):
    return evaluation.evaluate(
        run, view, prompts, name="step_000003", split="validation", step=3
    )


@pytest.fixture(scope="module")
def prompts(run):
    return evaluation.problems(run, "validation")


def test_problems_are_as_many_as_configured(run, prompts):
    assert len(prompts) == 6 and len(evaluation.problems(run, "test")) == 8
    ids = [prompt.example.id for prompt in prompts]
    assert ids == [example.id for example in run.task.validation][:6]


def test_the_table_is_that_of_the_graded_samples(run, view, prompts):
    result, graded = evaluated(graded_by(run, parity), view, prompts)
    values = np.array(
        [np.nan if v is None else v for v in parity(graded.completions)]
    ).reshape(6, 4)
    np.testing.assert_array_equal(graded.accuracy, values)
    assert 0 < np.isnan(values).mean() < 1
    rows = [row[~np.isnan(row)] for row in values]
    expected = np.mean([row.mean() for row in rows if len(row)])
    assert set(result["sampled"]) == {"pass@1", "pass@2", "pass@4"}
    assert result["sampled"]["pass@1"]["mean"] == pytest.approx(expected)
    assert result["ungraded_fraction"] == np.isnan(values).mean()
    every = [row.max() for row in rows if len(row) == 4]
    assert result["sampled"]["pass@4"]["mean"] == pytest.approx(
        np.mean(every) if every else np.nan, nan_ok=True
    )
    assert result["accuracy_mean"] == pytest.approx(np.nanmean(values))
    assert (result["name"], result["split"], result["step"]) == (
        "step_000003",
        "validation",
        3,
    )
    assert (result["problems"], result["samples"]) == (6, 4)
    headline = evaluation.headline(result)
    assert headline["evaluation/pass@1"] == result["sampled"]["pass@1"]["mean"]
    assert headline["evaluation/greedy"] == result["greedy"]["pass@1"]["mean"]
    tokens = [row.num_tokens for row in graded.completions]
    assert headline["evaluation/completion_tokens_mean"] == np.mean(tokens)


def test_greedy_is_one_sample_without_noise(run, view, prompts):
    seen = []

    def watch(completions):
        seen.append([row.text for row in completions])
        return [1.0] * len(completions)

    result, _ = evaluated(graded_by(run, watch), view, prompts)
    sampled, greedy = seen
    assert len(sampled) == 24 and len(greedy) == 6
    assert set(result["greedy"]) == {"pass@1"}
    graded = evaluation.grade(
        run, view, prompts, evaluation.Sampling(temperature=0.0), 2
    )
    texts = [row.text for row in graded.completions]
    assert texts[::2] == texts[1::2] == greedy
    assert any(len(set(sampled[i : i + 4])) > 1 for i in range(0, 24, 4))


def test_two_evaluations_share_their_noise(run, view, prompts):
    first, samples = evaluated(run, view, prompts)
    second, again = evaluated(run, view, prompts)
    assert first == second
    assert samples.completions == again.completions
    # And a problem's samples do not depend on what else is evaluated.
    _, fewer = evaluated(run, view, prompts[2:4])
    texts = [row.text for row in samples.completions[8:16]]
    assert [row.text for row in fewer.completions] == texts


def test_accuracy_is_graded_even_where_the_run_does_not_train_on_it(run, view, prompts):
    rewards = {"format": (1.0, run.task.rewards["format"])}
    result, graded = evaluated(dataclasses.replace(run, rewards=rewards), view, prompts)
    assert graded.rewards.names == ("accuracy", "format")
    assert {"accuracy_mean", "format_mean"} <= set(result)


def test_what_a_task_watches_and_parts_are_in_the_result(run, view, prompts):
    def half(completions):
        return [None if row.group == 0 else 0.5 for row in completions]

    def never(completions):
        return [None] * len(completions)

    watching = graded_by(run, parity)
    rewards = {**watching.task.rewards, "half": half, "never": never}
    task = dataclasses.replace(
        watching.task, rewards=rewards, watched=("half", "never")
    )
    some = [
        dataclasses.replace(
            prompt,
            example=dataclasses.replace(prompt.example, columns={"hops": 1 + at // 4}),
        )
        for at, prompt in enumerate(prompts)
    ]
    result, graded = evaluated(dataclasses.replace(watching, task=task), view, some)
    assert graded.rewards.names == ("accuracy", "half", "never")
    assert list(result["watched"]) == ["half"] and result["never_mean"] is None
    assert result["watched"]["half"]["mean"] == result["half_mean"] == 0.5
    assert evaluation.headline(result)["evaluation/half"] == 0.5
    one, two = result["by"]["hops"]["1"], result["by"]["hops"]["2"]
    assert (one["problems"], two["problems"]) == (4, 2)
    for part, rows in ((one, graded.accuracy[:4]), (two, graded.accuracy[4:])):
        rates = [np.nanmean(row) for row in rows if not np.isnan(row).all()]
        assert part["sampled"]["pass@1"]["mean"] == pytest.approx(np.mean(rates))
    assert one["greedy"]["pass@1"]["low"] <= one["greedy"]["pass@1"]["high"]
    assert "episode" not in result and "calls_mean" not in result


def test_greedy_can_be_left_out(run, view, prompts):
    config = dataclasses.replace(
        run.config, evaluation=c.EvaluationConfig(samples=2, greedy=False)
    )
    result, _ = evaluated(dataclasses.replace(run, config=config), view, prompts)
    assert result["greedy"] is None
    assert "evaluation/greedy" not in evaluation.headline(result)
    assert set(result["sampled"]) == {"pass@1", "pass@2"}


def test_the_weights_decide(run, view, prompts):
    other = jax.tree.map(lambda x: -x, view)
    first = evaluation.grade(run, view, prompts, evaluation.Sampling(1.0), 1)
    second = evaluation.grade(run, other, prompts, evaluation.Sampling(1.0), 1)
    assert first.completions != second.completions
