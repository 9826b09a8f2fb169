"""The walk of a user with a model directory and a file of problems, door by door."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from grpo_jax.policy import huggingface, transformer

pytestmark = pytest.mark.slow

PROBLEMS = [
    ("Ann has {a} pears and buys {b} more. How many has she?", lambda a, b: a + b),
    ("A shelf holds {a} books, {b} on each board. How many boards?", lambda a, b: a),
    ("Tom walks {a} miles a day. How far in {b} days?", lambda a, b: a * b),
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def write_problems(path: pathlib.Path, count: int) -> pathlib.Path:
    """GSM8K's form: a question, and an answer with its reasoning before ####."""
    rng = np.random.default_rng(count)
    with open(path, "w") as file:
        for index in range(count):
            text, solve = PROBLEMS[index % len(PROBLEMS)]
            a, b = int(rng.integers(2, 90)), int(rng.integers(2, 9))
            row = {
                "question": text.format(a=a, b=b),
                "answer": f"We take {a} and {b}.\n#### {solve(a, b):,}",
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_tokenizer(directory: pathlib.Path) -> pathlib.Path:
    """A byte-level BPE with a chat template, as the Qwen tokenizers are."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text, _ in PROBLEMS], trainer)
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def door(name: str, *flags: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"grpo_jax.{name}", *flags],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def run(name: str, *flags: str) -> str:
    process = door(name, *flags)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Model directory, training killed at step 2 and resumed, evaluation, export."""
    root = tmp_path_factory.mktemp("walk")
    tokenizer = write_tokenizer(root / "tokenizer")
    run(
        "random_model",
        "--preset=qwen2.5-0.5b",
        f"--tokenizer={tokenizer}",
        "--num_layers=4",
        "--hidden_size=256",
        "--vocab_size=512",
        f"--output={root / 'model'}",
    )
    flags = [
        "--config=configs/gsm8k.py",
        f"--workdir={root / 'run'}",
        f"--config.policy.path={root / 'model'}",
        f"--config.task.train_path={write_problems(root / 'train.jsonl', 40)}",
        f"--config.task.test_path={write_problems(root / 'test.jsonl', 8)}",
        "--config.task.validation_rows=8",
        "--config.trainer.steps=3",
        "--config.trainer.micro_batch_tokens=4096",
        "--config.rollout.prompts_per_step=4",
        "--config.rollout.group_size=4",
        "--config.rollout.max_completion_tokens=32",
        "--config.evaluation.every_steps=3",
        "--config.checkpoint.every_steps=1",
    ]
    process = door("train", *flags)
    deadline = time.monotonic() + 300
    metrics = root / "run" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"it never came to be killed: {process.communicate()[0]}")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run("train", *flags)
    return root


def test_training_resumed_and_ended(walk):
    lines = (walk / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["policy/sampler_gap_mean"] < 0.05 for row in rows)
    summary = json.loads((walk / "run" / "summary.json").read_text())
    assert summary["stopped"] == "finished" and summary["steps"] == 3
    rollouts = (walk / "run" / "rollouts" / "000003.jsonl").read_text().splitlines()
    assert len(rollouts) == 16
    assert "<|start|>assistant" in json.loads(rollouts[0])["prompt"]


def test_the_run_is_evaluated(walk):
    output = run("evaluate", f"--workdir={walk / 'run'}")
    assert "pass@1" in output
    result = json.loads((walk / "run/evaluation/test_000003.json").read_text())
    assert result["problems"] == 8 and result["ungraded_fraction"] == 0


@pytest.fixture(scope="module")
def exported(walk):
    output = walk / "exported"
    run("export", f"--workdir={walk / 'run'}", f"--output={output}", "--dtype=float32")
    return output


def test_the_export_is_a_model_directory(walk, exported):
    before = huggingface.load_params(
        walk / "model", huggingface.read_architecture(walk / "model")
    )
    arch = huggingface.read_architecture(exported)
    after = huggingface.load_params(exported, arch)
    assert jax.tree.map(np.shape, before) == jax.tree.map(np.shape, after)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert tokenizer.chat_template == CHAT_TEMPLATE


@pytest.mark.torch
def test_transformers_computes_the_same_logits(exported):
    torch = pytest.importorskip("torch")
    arch = huggingface.read_architecture(exported)
    after = huggingface.load_params(exported, arch)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported)
    tokens = np.arange(10, 30)[None]
    theirs = model(torch.asarray(tokens)).logits.detach().numpy()
    ours = transformer.logits(after, transformer.forward(after, arch, tokens))
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-4)
