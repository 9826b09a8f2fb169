"""The door that plans, as a user runs it, and the plan that training makes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from grpo_jax import config_files
from grpo_jax.policy import devices
from grpo_jax.trainer import loop, memory, planning
from grpo_jax.trainer import run as runs

CONFIGS = pathlib.Path("configs")


@pytest.fixture
def described(tmp_path):
    """A model directory that describes a model of 0.5B and holds no weights."""
    source = pathlib.Path("tests/fixtures/tiny_qwen2/config.json")
    sizes = {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
    }
    directory = tmp_path / "model"
    directory.mkdir()
    config = json.loads(source.read_text()) | sizes
    (directory / "config.json").write_text(json.dumps(config))
    return f"--config.policy.path={directory}"


def plan(*arguments, status=0):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    environment.pop(planning.GPU_FRACTION, None)
    done = subprocess.run(
        [sys.executable, "-m", "grpo_jax.plan", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=300,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


GSM8K, QUICKSTART = (f"--config={CONFIGS}/{x}.py" for x in ("gsm8k", "quickstart"))


@pytest.mark.system
def test_a_plan_of_a_named_device(described):
    done = plan(GSM8K, described, "--device=h200", "--price_per_hour=3")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0].startswith("494M parameters, bfloat16, remat full, on 1 x H200 (")
    assert "usable 105.75 105.75 105.75 105.75" in lines
    assert any(line.startswith("together ") and " and $" in line for line in lines)
    # The hub and the tokenizer are left alone, and say nothing.
    assert not done.stderr


@pytest.mark.system
def test_a_plan_of_several_devices_that_are_not_here(described):
    done = plan(GSM8K, described, "--device=v5ex8", "--config.mesh.fsdp=8")
    assert "on 8 x v5e (data=1, fsdp=8, tensor=1)" in done.stdout
    row = next(x for x in done.stdout.splitlines() if x.startswith("parameters  "))
    assert row.split()[1:] == [f"{4 * 494_032_768 / 8 / 1e9:.2f}"] * 4


@pytest.mark.system
def test_a_run_that_does_not_fit_ends_with_status_1_and_what_would(described):
    tokens = "--config.trainer.micro_batch_tokens=200000"
    done = plan(GSM8K, described, "--device=L4", tokens, status=1)
    assert "sum" in done.stdout
    assert "error: the run does not fit: " in done.stderr
    said, _, number = done.stderr.rpartition("=")
    assert said.endswith("It would fit with --config.trainer.micro_batch_tokens")
    plan(GSM8K, described, "--device=L4", f"{tokens.partition('=')[0]}={number}")


@pytest.mark.system
def test_this_machine_is_planned_for_without_a_device():
    done = plan(QUICKSTART)
    assert " on 1 x CPU (" in done.stdout and "no figures of CPU" in done.stdout


@pytest.mark.system
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device=abacus"], "device 'abacus' is not known: use one of T4, L4"),
        (["--device=v5ex8", "--config.mesh.data=3"], "there are 8"),
        (["--device=v5ex7"], "config.mesh.data x config.mesh.fsdp, 7,"),
        (["--device=T4x4", "--config.mesh.tensor=4"], "num_kv_heads"),
        (["--device=T4", "--config.policy.attention=splash"], "needs a TPU"),
    ],
)
def test_mistakes_get_one_message(flags, message):
    done = plan(QUICKSTART, *flags, status=1)
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_training_refuses_what_does_not_fit_before_it_begins(tmp_path, monkeypatch):
    config = config_files.load(str(CONFIGS / "quickstart.py"))
    host = devices.host()
    monkeypatch.setattr(planning, "this_device", lambda: (host, 1e6))
    monkeypatch.setattr(runs, "build", lambda _: pytest.fail("it was built"))
    with pytest.raises(ValueError, match="does not fit: .* which has 1.00 MB to use"):
        loop.train(config.seal(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_takes_the_sizes_that_fit(monkeypatch):
    config = config_files.load(str(CONFIGS / "quickstart.py")).seal()
    host, ample = devices.host(), runs.plan(config)
    # Leaves no headroom to the rows of a step, nor to the usual micro-batch.
    limit = memory.total(ample.footprint.rollout(256))
    monkeypatch.setattr(planning, "this_device", lambda: (host, limit))
    run = runs.build(config)
    try:
        plan = run.model.plan
        assert plan.fits and (ample.rows, plan.rows) == (256, 128)
        assert 256 < plan.micro_batch_tokens < ample.micro_batch_tokens == 8 * 2048
        assert run.model.rollout_setup().max_rows == plan.rows
    finally:
        run.close()
