"""What is evaluated and how: a split of the task, or a benchmark asked in its way."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_jax.config import SamplingConfig, TrainConfig
from grpo_jax.curation.contamination import contamination
from grpo_jax.curation.problems import Problem
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.environments.load import open_environment
from grpo_jax.reporting import terminal
from grpo_jax.tasks import benchmarks
from grpo_jax.tasks.benchmarks import Benchmark
from grpo_jax.trainer import evaluation, planning, statistics
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.evaluation import Graded
from grpo_jax.trainer.model import Model
from grpo_jax.trainer.run import Run

# Words in a row that a benchmark's problem may not share with training data.
_NGRAM = 8


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user changes; 0 and -1 leave what the benchmark or split recommends.

    Attributes:
      samples: completions of each problem.
      max_completion_tokens: longest completion.
      temperature: 0 is greedy, -1 the recommended one.
      top_p: 1 is off, 0 the recommended one.
      problems: how many are taken, from the first.
      seed: another one gives other completions.
      training_prompt: ask a benchmark as the configured task asks.
    """

    samples: int = 0
    max_completion_tokens: int = 0
    temperature: float = -1.0
    top_p: float = 0.0
    problems: int = 0
    seed: int = 0
    training_prompt: bool = False


@dataclasses.dataclass(frozen=True)
class Job:
    """One evaluation to be made.

    Attributes:
      split: "validation", "test" or the name of the benchmark.
      run: its configuration says how; its task grades.
      prompts: the problems.
    """

    split: str
    run: Run
    prompts: list[EncodedPrompt]


def split_job(config: TrainConfig, split: str, options: Options) -> Job:
    """Returns the evaluation of the task's own problems.

    Raises:
      ValueError: the task has none, or cannot be built.
    """
    old, problems = config.evaluation, f"{split}_problems"
    changed = {
        "samples": options.samples or old.samples,
        "sampling": _sampling(old.sampling, options),
        "max_completion_tokens": options.max_completion_tokens
        or old.max_completion_tokens,
        problems: options.problems or getattr(old, problems),
    }
    changed = dataclasses.replace(old, **changed)
    built = runs.build(dataclasses.replace(config, evaluation=changed).seal())
    prompts = evaluation.problems(built, split)
    if not prompts:
        raise ValueError(
            f"the task has no {split} problems: set --config.task.{split}_path, "
            "another --split, or --benchmarks"
        )
    return Job(split, built, prompts)


def benchmark_job(model: Model, benchmark: Benchmark, options: Options) -> Job:
    """Returns the evaluation of a benchmark, asked and sampled as it recommends.

    One to search for is asked as the run asks, with its episodes and its retrieval, or
    where that names no documents, with the pages that the benchmark's rows bring.

    Args:
      model: as the configuration built it.
      benchmark: what is evaluated.
      options: what is changed of the benchmark's recommendations.

    Raises:
      FileNotFoundError: nothing is at the benchmark's location.
      ValueError: no usable problem, nothing to search, or prompts that leave no room
        for a completion.
    """
    config, context = model.config, model.arch.max_context_tokens
    graded = benchmarks.task(benchmark, config.task.tags, config.reward)
    examples = graded.test
    if config.retrieval.names_documents:
        examples = [_without_evidence(example) for example in examples]
    if benchmark.problems not in (0, len(examples)):
        terminal.say(
            f"warning: {benchmark.location} holds {len(examples)} problems and "
            f"{benchmark.name} has {benchmark.problems}: the result cannot be compared "
            "with published ones"
        )
    examples = examples[: options.problems or None]
    task = config.task
    if not (options.training_prompt or benchmark.search):
        task = dataclasses.replace(
            task,
            system_prompt="",
            instructions=False,
            prompt_template=benchmarks.PROMPT,
            use_chat_template=model.tokenizer.has_chat_template,
        )

    def with_prompts_of(tokens: int, config: TrainConfig) -> Model:
        rollout = dataclasses.replace(config.rollout, max_prompt_tokens=tokens)
        config = dataclasses.replace(config, task=task, rollout=rollout).seal()
        return dataclasses.replace(model, config=config)

    prompts = with_prompts_of(context - 1, config).encode(examples)
    if len(prompts) < len(examples):
        raise ValueError(
            f"{len(examples) - len(prompts)} prompts of {benchmark.name} fill the "
            f"model's context of {context} tokens: evaluate another model on it"
        )
    longest = max(len(prompt.tokens) for prompt in prompts)
    limit = options.max_completion_tokens or _limit(
        benchmark, config, context - longest
    )
    changed = dataclasses.replace(
        config.evaluation,
        samples=options.samples or benchmark.samples,
        greedy=False,
        sampling=_sampling(
            SamplingConfig(benchmarks.TEMPERATURE, top_p=benchmarks.TOP_P), options
        ),
        max_completion_tokens=limit,
    )
    built = with_prompts_of(longest, dataclasses.replace(config, evaluation=changed))
    plan = planning.plan_on(built.config, built.arch, built.mesh)
    built = dataclasses.replace(built, plan=plan)
    environment = None
    if benchmark.search:
        environment = open_environment(config, graded, model.mesh)
    run = Run(built.config, built, graded, {}, environment)
    return Job(benchmark.name, run, prompts)


def _without_evidence(example: Example) -> Example:
    """Returns an example without gold pages, whose ids are not of another corpus."""
    columns = {name: x for name, x in example.columns.items() if name != "evidence"}
    return dataclasses.replace(example, columns=columns)


def settings(job: Job, weights: str, seed: int) -> dict[str, Any]:
    """Returns all that the completions of an evaluation depend on.

    Args:
      job: what is evaluated.
      weights: as `policies.digest` names them.
      seed: of the evaluation.
    """
    config = job.run.config
    asked = [
        [each.example.id, each.tokens, each.example.reference] for each in job.prompts
    ]
    episodes = {}
    if environment := job.run.environment:
        episodes = {
            "episode": dataclasses.asdict(config.episode),
            "environment": dict(environment.describe()),
        }
        if config.budget.probe_tokens:
            names = ("probe_tokens", "exit_confidence")
            episodes["probes"] = {name: getattr(config.budget, name) for name in names}
    return episodes | {
        "weights": weights,
        "prompts": hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16],
        "samples": config.evaluation.samples,
        **dataclasses.asdict(config.evaluation.sampling),
        "max_completion_tokens": config.evaluation.max_completion_tokens
        or config.rollout.max_completion_tokens,
        "dtype": config.policy.dtype.value,
        "config_seed": config.seed,
        "seed": seed,
    }


def contaminated(prompts: Sequence[EncodedPrompt], files: Sequence[str]) -> list[int]:
    """Returns the ids of problems that share a word 8-gram with a training question.

    Args:
      prompts: of the evaluation.
      files: datasets that the policy was trained on.

    Raises:
      FileNotFoundError: nothing is at a location.
      ValueError: a file without a column of questions.
    """
    known = [
        Problem(file, file, question)
        for file in files
        for question in benchmarks.questions(file)
    ]
    asked = [
        Problem(str(prompt.example.id), "", prompt.example.question)
        for prompt in prompts
    ]
    verdicts = contamination(asked, known, _NGRAM)
    pairs = zip(prompts, verdicts, strict=True)
    return [prompt.example.id for prompt, verdict in pairs if verdict]


def contamination_of(
    graded: Graded, ids: Sequence[int], files: Sequence[str], confidence: float
) -> dict[str, Any]:
    """Returns what a result says of contamination.

    Args:
      graded: every sample.
      ids: what `contaminated` found.
      files: where it looked.
      confidence: of the interval of pass@1 on the other problems.
    """
    clean = ~np.isin([prompt.example.id for prompt in graded.prompts], ids)
    values = statistics.pass_at_k(graded.accuracy, 1)[clean]
    return {
        "train_data": list(files),
        "ngram": _NGRAM,
        "problems": list(ids),
        "clean": statistics.mean_with_interval(values, confidence),
    }


def _sampling(recommended: SamplingConfig, options: Options) -> SamplingConfig:
    changed = {}
    if options.temperature >= 0:
        changed["temperature"] = options.temperature
    if options.top_p:
        changed["top_p"] = options.top_p
    return dataclasses.replace(recommended, **changed)


def _limit(benchmark: Benchmark, config: TrainConfig, room: int) -> int:
    """Returns the recommended longest completion, or what the context leaves."""
    recommended = (
        benchmark.max_completion_tokens
        or config.evaluation.max_completion_tokens
        or config.rollout.max_completion_tokens
    )
    if room < recommended:
        terminal.say(
            f"{benchmark.name}: completions have up to {room} tokens, not "
            f"{recommended}: the model's context holds no more"
        )
    return min(recommended, room)
