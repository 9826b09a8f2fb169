"""Problems solved by the samples of a real, tiny policy."""

import contextlib
import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.curation.problems import Solved
from grpo_jax.trainer import evaluation, pass_rates
from grpo_jax.trainer import model as models
from tests import helpers
from tests.curation.helpers import problem

ROWS = [problem(f"{i}+1=?", str(i + 1)) for i in range(6)]


def config(**policy: str) -> c.TrainConfig:
    names = {"preset": "miniature", "tokenizer": "characters", **policy}
    return c.TrainConfig(
        policy=c.PolicyConfig(dtype=choices.Dtype.FLOAT32, **names),
        rollout=c.RolloutConfig(
            prompts_per_step=8,
            group_size=4,
            max_prompt_tokens=8,
            max_completion_tokens=4,
            chunk_steps=4,
        ),
    )


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    def build(config: c.TrainConfig) -> models.Model:
        model = models.build_model(config)
        return dataclasses.replace(model, mesh=helpers.one_device_mesh())

    monkeypatch.setattr(pass_rates, "build_model", build)


@contextlib.contextmanager
def opened(changed: c.TrainConfig | None = None, samples: int = 4):
    with pass_rates.open_policy((changed or config()).seal(), samples) as policy:
        yield policy


@pytest.fixture
def first_character(monkeypatch):
    """Right where the first character has an even code; ungraded where divisible."""

    def reward(completions):
        codes = [ord((row.text or "0")[0]) for row in completions]
        return [None if code % 3 == 0 else float(code % 2 == 0) for code in codes]

    monkeypatch.setattr(pass_rates, "accuracy", lambda pool: reward)


def test_counts_are_those_of_the_graded_samples(first_character, monkeypatch):
    tables = []
    grade = evaluation.grade

    def watched(*arguments):
        tables.append(grade(*arguments))
        return tables[-1]

    monkeypatch.setattr(evaluation, "grade", watched)
    with opened() as policy:
        solved = policy.solve([*ROWS, problem("a longer prompt", "1")])
        some = policy.solve(ROWS[2:4])
        assert policy.at_once == 4 * 32 // 4
    values = tables[0].accuracy
    assert 0 < np.isnan(values).sum() < values.size
    assert solved == [
        *(Solved(int((row == 1).sum()), int((row >= 0).sum()), 4) for row in values),
        Solved(0, 0, 0),
    ]
    assert 0 < sum(each.right for each in solved) < sum(each.graded for each in solved)
    # Whatever else is asked at the same time.
    assert some == solved[2:4]


def test_answers_are_verified():
    with opened() as policy:
        (solved, _) = policy.solve(ROWS[:2])
    assert (solved.graded, solved.sampled) == (4, 4)


def test_nothing_fits(first_character):
    with opened() as policy:
        assert policy.solve([problem("a longer prompt")]) == [Solved(0, 0, 0)]


def facts_of(changed: c.TrainConfig, samples: int = 4) -> dict[str, object]:
    with opened(changed, samples) as policy:
        return dict(policy.facts)


def test_facts_tell_policies_apart(tmp_path):
    before = facts_of(config())
    assert facts_of(config()) == before
    assert facts_of(config(), samples=5) != before
    for section, name, value in (
        ("task", "prompt_template", "{question}!"),
        ("task", "system_prompt", "Add."),
        ("rollout", "max_completion_tokens", 5),
        ("rollout", "sampling", c.SamplingConfig(temperature=0.5)),
        ("evaluation", "max_completion_tokens", 3),
        ("reward", "check_seconds", 1.0),
    ):
        changed = config()
        setattr(getattr(changed, section), name, value)
        assert facts_of(changed) != before, name
    seeded = dataclasses.replace(config(), seed=1)
    assert facts_of(seeded) != before


def test_facts_follow_the_weights(tmp_path):
    def facts_in(folder: pathlib.Path) -> dict[str, object]:
        return facts_of(config(path=str(folder)))

    one, copy = tmp_path / "one", tmp_path / "copy"
    shutil.copytree("tests/fixtures/tiny_qwen3", one)
    shutil.copytree(one, copy)
    assert facts_in(copy) == facts_in(one)
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    assert facts_in(copy) != facts_in(one)


def test_a_warm_start_is_refused():
    warm = config()
    warm.warm_start.steps = 3
    with pytest.raises(ValueError, match="set config.warm_start.steps=0"), opened(warm):
        pass
