"""A guided run: its files, and that without guidance it is the plain method."""

import json
import pathlib

import pytest

from grpo_jax import choices, config_files
from grpo_jax.trainer import loop

pytestmark = pytest.mark.system

ROOT = pathlib.Path(__file__).parents[1]


def train(workdir, steps=3, order=choices.Order.SHUFFLED, **guidance):
    config = config_files.load(str(ROOT / "configs/g2rpoa.py") + ":miniature")
    config.warm_start.steps, config.trainer.steps = 8, steps
    config.rollout.order, config.rollout.tier_samples = order, 2
    config.warm_start.batch_size = config.warm_start.demonstrations = 64
    config.task.arithmetic.train_problems = 64
    config.task.arithmetic.test_problems = 8
    config.rollout.prompts_per_step, config.evaluation.every_steps = 8, 0
    config.objective.kl_coef = 0.01
    for name, value in guidance.items():
        setattr(config.guidance, name, value)
    loop.train(config.seal(), workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rollouts = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((workdir / "rollouts").iterdir())
    ]
    return [json.loads(line) for line in lines], rollouts


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return train(tmp_path_factory.mktemp("plain"), fraction=0.0)


def guided_tokens(row):
    return sum(end - start for who, start, end in row["spans"] if who == "guidance")


@pytest.mark.parametrize(
    "loss",
    [
        choices.GuidanceLoss.MASK,
        pytest.param(choices.GuidanceLoss.INCLUDE, marks=pytest.mark.slow),
        pytest.param(choices.GuidanceLoss.OFF_POLICY, marks=pytest.mark.slow),
    ],
)
def test_a_quarter_of_every_group_starts_with_its_trace(tmp_path, loss):
    metrics, rollouts = train(tmp_path, loss=loss)
    for line, rows in zip(metrics, rollouts, strict=True):
        for row in rows:
            given = guided_tokens(row)
            assert (given > 0) == (row["sample"] < 2)
            assert given <= line["guidance/length"]
        assert line["guidance/guided_fraction"] == 0.25
        assert line["guidance/nll"] > 0 and line["guidance/kl"] >= 0
        assert line["guidance/entropy"] > 0
    # The unguided rows are all wrong: equal rewards add delta, up to the bound.
    assert [line["guidance/length"] for line in metrics] == [36, 39, 39]
    page = (tmp_path / "report.html").read_text()
    assert "Guidance length" in page and "Groups rescued by guidance" in page


def test_the_ladder_gives_more_and_more_of_the_traces(tmp_path):
    train(tmp_path, steps=1, ladder_prompts=8, signal_reward="format")
    ladder = json.loads((tmp_path / "guidance_ladder.json").read_text())
    assert ladder["signal"] == "format" and ladder["prompts"] == 8
    assert [rung["length"] for rung in ladder["rungs"]] == [0, 6, 13, 19, 26, 32, 39]
    # A trace has 52 tokens, 42 of them before its thoughts are closed.
    assert [rung["given_tokens_mean"] for rung in ladder["rungs"]] == [
        rung["length"] for rung in ladder["rungs"]
    ]
    assert all(0 <= r["low"] <= r["mean"] <= r["high"] <= 1 for r in ladder["rungs"])
    assert "Guidance ladder" in (tmp_path / "report.html").read_text()


def test_measured_tiers_are_kept_for_the_resume(tmp_path):
    train(tmp_path, steps=1, order=choices.Order.PASS_RATE)
    path = tmp_path / "tiers.json"
    tiers = json.loads(path.read_text())["not_right"]
    assert len(tiers) == 64 and set(tiers) <= {0, 1, 2}
    # As if prompts 50 to 57 had been right once: they come first.
    tiers = [1 if 50 <= index < 58 else 2 for index in range(64)]
    path.write_text(json.dumps({"not_right": tiers}))
    metrics, rollouts = train(tmp_path, steps=2, order=choices.Order.PASS_RATE)
    assert len(metrics) == 2
    # The second batch of eight follows those: the lowest of the others.
    assert {row["prompt_id"] for row in rollouts[1]} == set(range(8))
    assert {row["tier"] for row in rollouts[1]} == {2}
    path.unlink()
    with pytest.raises(FileNotFoundError, match="keeps the order of its prompts"):
        train(tmp_path, steps=3, order=choices.Order.PASS_RATE)


@pytest.mark.parametrize("how", ["length", "fraction"])
def test_no_guidance_is_the_plain_method_bit_by_bit(tmp_path, plain, how):
    nothing = {"fraction": 0.0}
    if how == "length":
        nothing = {"initial": 0, "length": choices.GuidanceLength.FIXED}
    metrics, rollouts = train(tmp_path, **nothing)
    assert rollouts == plain[1]
    for line, expected in zip(metrics, plain[0], strict=True):
        for name in ("loss/total", "optimizer/gradient_norm", "policy/entropy"):
            assert line[name] == expected[name]


def test_only_groups_that_fail_are_guided(tmp_path):
    _, rollouts = train(tmp_path, only_failing=True, signal_reward="format")
    for rows in rollouts:
        groups = [rows[first : first + 8] for first in range(0, len(rows), 8)]
        for group in groups:
            unguided = [row["rewards"]["format"] for row in group[2:]]
            guided = [guided_tokens(row) > 0 for row in group]
            assert guided == [max(unguided) == 0] * 2 + [False] * 6
