"""How often the policy of a configuration solves problems that are no task yet."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.curation.pass_rates import Policy
from grpo_jax.curation.problems import Problem, Solved
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt, encode_prompts
from grpo_jax.policy import transformer
from grpo_jax.rewards.accuracy import accuracy
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.tasks import math
from grpo_jax.tasks.base import Task
from grpo_jax.trainer import evaluation
from grpo_jax.trainer.model import Model, build_model
from grpo_jax.trainer.run import Run

# Rows of a chunk for each row that is decoded at once: the places of those that end
# early are taken by others, and a run that is killed loses a chunk.
_WAVES = 4


@contextlib.contextmanager
def open_policy(config: TrainConfig, samples: int) -> Iterator[Policy]:
    """Yields the policy that a run of `config` would start from.

    Problems become prompts as they do in that run, completions are drawn with
    `config.rollout.sampling`, and answers are checked as the math task checks them. The
    weights are read when the policy is first asked.

    Args:
      config: sealed; of the task only the prompt matters.
      samples: completions of each problem.

    Raises:
      ValueError: a mesh or a model that cannot be.
      FileNotFoundError: a path that does not exist.
    """
    if config.warm_start.steps:
        raise ValueError(
            f"config.warm_start.steps is {config.warm_start.steps}: pass rates are of "
            "the weights in config.policy.path; set config.warm_start.steps=0, or "
            "export a warm-started run and set config.policy.path to it"
        )
    model = build_model(config)
    pool = math.verifier(config.reward)
    task = Task("math", (), (), (), {"accuracy": accuracy(pool)}, close=pool.close)
    run = Run(config, model, task, rewards={})
    view = functools.cache(lambda: model.rollout_view(model.initial_params()))
    setup = model.rollout_setup(config.evaluation.max_completion_tokens)

    def solve(problems: Sequence[Problem]) -> list[Solved]:
        return _solve(run, view(), problems, samples)

    with contextlib.closing(run), jax.set_mesh(model.mesh):
        yield Policy(
            name=config.policy.path or config.policy.preset,
            facts=_facts(model, samples, setup.max_completion_tokens),
            solve=solve,
            at_once=max(1, _WAVES * setup.max_rows // samples),
        )


def _solve(
    run: Run, view: transformer.Params, problems: Sequence[Problem], samples: int
) -> list[Solved]:
    prompts = _prompts(run.model, problems)
    solved: dict[str, Solved] = {}
    if prompts:
        sampling = Sampling.of(run.config.rollout.sampling)
        accuracies = evaluation.grade(run, view, prompts, sampling, samples).accuracy
        for prompt, row in zip(prompts, accuracies, strict=True):
            right, graded = (row > 0.5).sum(), (~np.isnan(row)).sum()
            solved[prompt.example.question] = Solved(int(right), int(graded), samples)
    return [solved.get(each.question, Solved(0, 0, 0)) for each in problems]


def _prompts(model: Model, problems: Sequence[Problem]) -> list[EncodedPrompt]:
    """Returns the prompts that fit.

    What a question is sampled with depends on the question, not on its row.
    """
    examples = [
        Example(zlib.crc32(each.question.encode()) >> 1, each.question, each.answer)
        for each in problems
    ]
    options = {**model.prompt_options, "overlong": choices.Overlong.DROP}
    return encode_prompts(examples, model.tokenizer, **options)


def _facts(model: Model, samples: int, max_completion_tokens: int) -> dict[str, Any]:
    """Returns all that the counts depend on."""
    config = model.config
    policy, reward = config.policy, config.reward
    return {
        "weights": _digest(model.source) if model.source else policy.preset,
        "tokenizer": model.tokenizer.digest(),
        "dtype": policy.dtype.value,
        "system_prompt": model.prompt_options["system_prompt"],
        "prompt_template": config.task.prompt_template,
        "use_chat_template": config.task.use_chat_template,
        "max_prompt_tokens": config.rollout.max_prompt_tokens,
        "max_completion_tokens": max_completion_tokens,
        "sampling": dataclasses.asdict(Sampling.of(config.rollout.sampling)),
        "samples": samples,
        "seed": config.seed,
        "check_seconds": reward.check_seconds,
        "batch_seconds": reward.batch_seconds,
        "check_memory_mb": reward.check_memory_mb,
    }


def _digest(folder: pathlib.Path) -> str:
    """Returns the SHA-256 of a model's weights and shape."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
