"""The door that scores experts, and a run that weighs them by it."""

import json

import jax
import pytest

from configs import david_grpo
from grpo_jax import choices
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.policy import huggingface, presets
from grpo_jax.trainer import loop, metric_names
from tests import helpers

pytestmark = pytest.mark.system

SMALL = {
    "task.world.entities": 64,
    "task.world.train_questions": 16,
    "task.world.validation_questions": 1,
    "task.world.test_questions": 1,
    "task.world.three_hops": 0.0,
    "rollout.prompts_per_step": 4,
    "rollout.group_size": 4,
    "rollout.max_completion_tokens": 200,
    "rollout.easy_fraction": 0.25,
    "episode.turn_tokens": 8,
    "warm_start.steps": 0,
    "trainer.steps": 1,
    "trainer.micro_batch_tokens": 100_000,  # few shapes, few programs
    "evaluation.every_steps": 0,
    "evaluation.samples": 1,
    "experts.below": 2.0,  # every group
}


def run_on(model, experts, workdir):
    """Trains from a model with the experts of a file; returns the step's metrics."""
    config = david_grpo.miniature()
    for name, value in SMALL.items():
        *sections, field = name.split(".")
        section = config
        for each in sections:
            section = getattr(section, each)
        setattr(section, field, value)
    config.evaluation.greedy = False
    config.policy.path = str(model)
    config.task.experts_path = str(experts)
    config.experts.loss = choices.ExpertLoss.IMPORTANCE
    loop.train(config.seal(), workdir)
    [step] = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    assert not step.keys() - {"step"} - metric_names.of_run(config)
    return step


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two model directories with weights of their own."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = load_tokenizer(david_grpo.miniature().policy.tokenizer)
    arch = presets.preset("miniature-agent", tokenizer.vocab_size)
    for seed, name in enumerate("ab"):
        huggingface.save_pretrained(
            folder / name,
            helpers.params_of(arch, seed),
            arch,
            dtype="float32",
            tokenizer=tokenizer,
        )
    return folder


def test_a_run_weighs_experts_against_the_model_that_scored_them(models, tmp_path):
    experts = tmp_path / "experts.jsonl"
    overrides = [f"--config.{name}={value}" for name, value in SMALL.items()]
    door = (
        "score_experts",
        "--config=configs/david_grpo.py",
        *overrides,
        f"--model={models / 'a'}",
        f"--output={experts}",
    )
    done = helpers.run_door(*door)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(map(json.loads, experts.read_text().splitlines()))
    assert done.stdout.startswith(f"{len(rows)} experts are in {experts}\n")
    left_out = 16 - len(rows)
    assert (f"{left_out} exceed the limits" in done.stdout) == bool(left_out)
    again = helpers.run_door(*door)
    assert again.returncode == 1 and "experts.jsonl exists" in again.stderr

    same = run_on(models / "a", experts, tmp_path / "same")
    assert same["expert/seeded_fraction"] > 0
    assert same["expert/ratio_mean"] == pytest.approx(1, abs=1e-3)
    assert same["expert/clip_fraction"] == 0
    assert same["rollout/easy_fraction"] == 0.25
    other = run_on(models / "b", experts, tmp_path / "other")
    assert abs(other["expert/ratio_mean"] - 1) > 0.1
    assert other["expert/clip_fraction"] > 0
    for step in (same, other):
        assert step["policy/ratio_max"] == step["policy/ratio_min"] == 1
        assert step["policy/sampler_gap_max"] < 1e-2
        assert step["optimizer/skipped"] == 0
    assert jax.device_count() > 1  # on a mesh
