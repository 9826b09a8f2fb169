"""The guidance study: its runs are valid, run, resume, and are summed up right."""

import json

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.config import TaskConfig
from studies import guidance, guidance_results, tasks
from studies.study import Name, Study


def every_name():
    starts = [
        Name(regime, arm, 0) for regime, arms in guidance.arms().items() for arm in arms
    ]
    return [str(name) for name in starts]


@pytest.mark.parametrize("name", every_name())
def test_every_run_has_a_valid_configuration(name):
    guidance.get_config(name).seal()


def test_arms_differ_from_plain_in_guidance_alone():
    plain = guidance.get_config("sparse/plain/1")
    for arm in guidance.REGIMES["sparse"].arms:
        config = guidance.get_config(f"sparse/{arm}/1")
        config.guidance = plain.guidance
        assert config == plain


@pytest.mark.parametrize(
    "text, message",
    [
        ("dens/plain/0", "'dens' is no regime of .*'dense'"),
        ("dense/linear/0", "'linear' is no arm of .*'fixed'"),
        ("dense/plain", "write a seed, as in dense/plain/0"),
    ],
)
def test_a_name_that_is_no_run(text, message):
    with pytest.raises(ValueError, match=message):
        guidance.get_config(text)


def small(**fields) -> TaskConfig:
    config = TaskConfig()
    config.arithmetic.operations = 7
    config.arithmetic.answer = choices.Answer.ALL
    config.arithmetic.train_problems = 2000
    config.arithmetic.validation_problems = config.arithmetic.test_problems = 8
    for name, value in fields.items():
        setattr(config.arithmetic, name, value)
    return config


def steps_of(solution):
    thoughts = solution.removeprefix("<think>").partition("</think>")[0]
    return [(step[:3], step[4:]) for step in thoughts.split(";")]


def test_a_believer_prefers_one_wrong_result_of_a_third_of_all_facts():
    task = tasks.believing(small(mistake_fraction=0.0))
    written = {}
    for text in task.demonstrate(task.train, np.random.default_rng(0)):
        for fact, result in steps_of(text):
            written.setdefault(fact, []).append(int(result))
    wrong = 0
    for fact, results in written.items():
        true = eval(fact) % 10
        values, counts = np.unique(results, return_counts=True)
        assert len(values) <= 2 and true in values
        if len(values) == 2:
            wrong += 1
            share = counts[values != true][0] / counts.sum()
            assert abs(share - 0.6) < 4 * (0.24 / counts.sum()) ** 0.5
    assert len(written) == 200 and abs(wrong / 200 - 1 / 3) < 0.11


def test_what_a_believer_writes_is_what_it_goes_on_from():
    task = tasks.believing(small())
    for text in task.demonstrate(task.train[:50], np.random.default_rng(0)):
        steps = steps_of(text)
        for (_, result), (following, _) in zip(steps, steps[1:], strict=False):
            assert following[0] == result
        answer = text.partition("<answer>")[2].removesuffix("</answer>")
        assert answer == "".join(result for _, result in steps)


def test_tiers_are_subtractions_and_as_many_of_each():
    task = tasks.drifting(small(train_problems=640))
    tiers = [example.tier for example in task.train]
    assert tiers == [e.columns["operators"].count("-") for e in task.train]
    assert np.bincount(tiers).tolist() == [80] * 8
    rights = {"+": [], "-": []}
    for text in task.demonstrate(task.train, np.random.default_rng(0)):
        for fact, result in steps_of(text):
            rights[fact[1]].append(eval(fact) % 10 == int(result))
    # A slip is right one time in ten.
    assert abs(np.mean(rights["+"]) - 0.73) < 0.04
    assert abs(np.mean(rights["-"]) - 0.37) < 0.04


def write_run(folder, *, after, curve, seconds=2.0, tokens=100):
    """Writes a finished run of two steps, evaluated at 0 and 2."""
    (folder / "evaluation").mkdir(parents=True)
    points = {
        "before": ("test", 0, 0.01),
        "after": ("test", 2, after),
        "step_000000": ("validation", 0, curve[0]),
        "step_000002": ("validation", 2, curve[1]),
    }
    for name, (split, step, value) in points.items():
        passes = {"pass@1": {"mean": value, "low": value, "high": value}}
        row = {"split": split, "step": step, "sampled": passes, "greedy": passes}
        (folder / f"evaluation/{name}.json").write_text(json.dumps(row))
    lines = [
        {
            "step": step,
            "rollout/generated_tokens": tokens,
            "time/rollout_seconds": seconds,
            "time/reward_seconds": 0.0,
            "time/update_seconds": 1.0,
            "compile/seconds": 1.0,
            "reward/std_in_group": 0.25,
        }
        for step in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "summary.json").write_text(json.dumps({"stopped": "finished"}))


def test_arms_are_compared_at_equal_steps_tokens_and_seconds(tmp_path):
    for seed in range(3):
        at = tmp_path / "dense"
        write_run(at / f"plain/{seed}", after=0.5, curve=(0.0, 0.4), tokens=200)
        write_run(
            at / f"fixed/{seed}",
            after=0.6 + 0.1 * seed,
            curve=(0.0, 0.8),
            seconds=4.0,
        )
    guidance_results.write(tmp_path)
    table = (tmp_path / "results.md").read_text().splitlines()
    assert "at 0k tokens | at 4 s" in table[4]
    # 200 tokens are half of plain's, 4 seconds half of fixed's.
    assert table[6] == (
        "| plain | 50.0 (50.0 to 50.0) |  | -20.0 ± 24.8 | 50.0 (50.0 to 50.0) | "
        "20.0 (20.0 to 20.0) | 40.0 (40.0 to 40.0) | 0.250 |"
    )
    assert table[7] == (
        "| fixed | 70.0 (60.0 to 80.0) | +20.0 ± 24.8 |  | 70.0 (60.0 to 80.0) | "
        "80.0 (80.0 to 80.0) | 40.0 (40.0 to 40.0) | 0.250 |"
    )
    assert len(table) == 8  # additive has not been run
    assert (tmp_path / "results.svg").read_text().startswith("<svg")


@pytest.mark.slow
def test_a_run_trains_what_it_starts_from_and_is_not_run_twice(tmp_path):
    overrides = ["--config.warm_start.steps=1", "--config.trainer.steps=1"]
    overrides += [
        "--config.evaluation.test_problems=4",
        "--config.warm_start.batch_size=4",
    ]
    overrides += ["--config.evaluation.validation_problems=4"]
    study = Study(guidance.__file__, guidance.start, tmp_path, overrides)
    name = Name("dense", "fixed", 0)
    study.run([name])
    config = json.loads((tmp_path / "dense/fixed/0/config.json").read_text())
    assert config["policy"]["path"] == f"{tmp_path}/dense/base/0/model"
    assert config["guidance"]["length"] == "fixed"
    for start in ("school/facts/0", "school/steps/0", "dense/base/0"):
        assert (tmp_path / start / "model/model.safetensors").exists()
    log = tmp_path / "dense/fixed/0/log.txt"
    before = log.read_bytes()
    study.run([name])
    assert log.read_bytes() == before


def test_a_run_that_fails_says_why(tmp_path):
    study = Study(guidance.__file__, guidance.start, tmp_path, ["--config.seeds=1"])
    with pytest.raises(RuntimeError, match="(?s)train .*failed; from .*config.seeds"):
        study.run([Name("school", "facts", 0)])
