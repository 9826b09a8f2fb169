"""The method, top to bottom.

    prompts -> groups of completions -> rewards -> advantages -> updates -> metrics

with a checkpoint and an evaluation now and then. Running the same command again
resumes: every number from a checkpoint on is what it would have been without the stop.
"""

import contextlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.data.pipeline import EncodedPrompt, PromptStream
from grpo_jax.policy import transformer
from grpo_jax.policy.compilation import CompileLog
from grpo_jax.records import Trajectories
from grpo_jax.reporting import page, terminal
from grpo_jax.rewards import scoring
from grpo_jax.rollout import groups
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.setup import RolloutStats
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import (
    difficulty,
    evaluation,
    guidance,
    ladder,
    logbook,
    planning,
    speed,
    stepmetrics,
    warm_start,
)
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.checkpoint import Checkpoints
from grpo_jax.trainer.guidance import Given, Guide
from grpo_jax.trainer.learner import Learner
from grpo_jax.trainer.metrics import MetricsWriter, StepTimer
from grpo_jax.trainer.model import ROLLOUT
from grpo_jax.trainer.policies import open_checkpoints, starting_params
from grpo_jax.trainer.run import Run
from grpo_jax.trainer.stopping import Stopper


def train(
    config: TrainConfig, workdir: pathlib.Path, *, budget_seconds: float = 0.0
) -> dict[str, Any]:
    """Runs a configuration in a directory, or resumes it; returns its summary.

    Args:
      config: sealed.
      workdir: everything the run writes.
      budget_seconds: training saves and stops before this much time has passed; 0 is
        no limit. The evaluation after the last step is not counted.
    """
    logbook.check_workdir(workdir, config)
    planning.check(runs.plan(config))
    with (
        Stopper(budget_seconds) as stopper,
        contextlib.closing(runs.build(config)) as run,
        jax.set_mesh(run.model.mesh),
    ):
        # Only what could be built is written down as this workdir's configuration.
        logbook.open_workdir(workdir, config)
        with contextlib.closing(open_checkpoints(config, workdir)) as checkpoints:
            summary = _train(run, workdir, checkpoints, stopper)
    page.write_report([workdir], workdir / "report.html")
    _print_results(workdir, summary)
    return summary


def _train(
    run: Run, workdir: pathlib.Path, checkpoints: Checkpoints, stopper: Stopper
) -> dict[str, Any]:
    config = run.config
    stream = PromptStream(
        run.task.train,
        run.model.tokenizer,
        prompts_per_step=config.rollout.prompts_per_step,
        order=config.rollout.order,
        seed=config.seed,
        **run.model.prompt_options,
    )
    if stream.dropped:
        terminal.say(
            f"{stream.dropped} of {len(run.task.train)} training prompts have more "
            f"than {config.rollout.max_prompt_tokens} tokens and are left out"
        )
    timer, generated_tokens = StepTimer(), 0
    guide = None
    if config.guidance.fraction:
        guide = Guide(config, run.model.tokenizer, run.model.arch.vocab_size)

    # Start from the newest checkpoint, else the warm start, else the given weights.
    if checkpoints.latest_step is None and config.warm_start.steps:
        warm_start.warm_start(run, stream.prompts, workdir, stopper, timer)
        if stopper.reason:
            return _summarise(workdir, 0, stopper.reason, timer, 0)
    params = None
    if checkpoints.latest_step is None or config.objective.kl_coef:
        params = starting_params(run.model, workdir)
    learner = Learner(run, params, workdir)
    del params
    if checkpoints.latest_step is not None:
        position = learner.restore(checkpoints)
        stream.set_state(position["stream"])
        if guide:
            guide.set_state(position["guidance"])
        timer = StepTimer(position["seconds"])
        generated_tokens = position["generated_tokens"]
    first = int(learner.state.step) + 1
    every = config.evaluation.every_steps
    if first == 1:
        with timer("evaluation"):
            _look_before(run, learner, stream, guide, workdir)
    elif config.rollout.order is choices.Order.PASS_RATE:
        stream.set_tiers(difficulty.read(workdir))

    writer = MetricsWriter(workdir, resume_step=first - 1)
    with (
        writer,
        contextlib.closing(CompileLog()) as compiled,
        _progress(config, first) as progress,
    ):
        timer.metrics()  # what came before is no part of the first step
        stopper.lap()
        for step in range(first, config.trainer.steps + 1):
            prompts = next(stream)
            with timer("rollout"):
                trajectories, sampler, given = _roll_out(
                    run, guide, learner.state.params, prompts, step
                )
            with timer("reward"):
                completions = groups.completions(
                    trajectories, prompts, run.model.tokenizer
                )
                rewards = scoring.score(completions, run.rewards)
                counts = run.task.take_counts()
            with timer("update"):
                advantages = batches.advantages_of(rewards.totals, config)
                metrics = learner.learn(trajectories, rewards.totals, advantages)

            if every and step % every == 0:
                name = f"step_{step:06d}"
                with timer("evaluation"):
                    metrics |= _evaluate(run, learner, workdir, "validation", name)
            metrics |= stepmetrics.reward_metrics(rewards, advantages, config)
            if guide and given:
                metrics |= guide.observe(prompts, given, rewards, trajectories)
            metrics |= counts
            metrics |= timer.metrics()
            metrics |= compiled.take()
            metrics |= stepmetrics.rollout_metrics(trajectories, prompts)
            metrics |= speed.speed_metrics(
                config, run.model.arch, trajectories, sampler, metrics
            )
            generated_tokens += int(metrics["rollout/generated_tokens"])
            logged = config.trainer.logged_groups
            logbook.write_rollouts(
                workdir,
                step,
                prompts if logged < 0 else prompts[:logged],
                completions,
                trajectories,
                rewards,
                advantages,
            )
            writer.write(step, metrics)
            progress.update(step, metrics)

            stopping = stopper.should_stop()
            last = step == config.trainer.steps
            due = step % config.checkpoint.every_steps == 0
            if due or stopping or last or config.checkpoint.best_metric in metrics:
                position = {
                    "stream": stream.get_state(),
                    "seconds": timer.totals,
                    "generated_tokens": generated_tokens,
                }
                if guide:
                    position["guidance"] = guide.get_state()
                learner.save(checkpoints, position, metrics)
            if stopping and not last:
                break

    step = int(learner.state.step)
    if step < config.trainer.steps:
        return _summarise(workdir, step, stopper.reason, timer, generated_tokens)
    if step:
        with timer("evaluation"):
            _evaluate(run, learner, workdir, "test", "after")
    return _summarise(workdir, step, "finished", timer, generated_tokens)


def _progress(config: TrainConfig, first: int) -> terminal.Progress:
    return terminal.Progress("GRPO", config.trainer.steps, start_step=first - 1)


def _roll_out(
    run: Run,
    guide: Guide | None,
    params: transformer.Params,
    prompts: Sequence[EncodedPrompt],
    step: int,
) -> tuple[Trajectories, RolloutStats, Given | None]:
    """Returns a group of completions for every prompt, and what that took.

    The sampler's copy of the weights lives in here only: it is gone before the update.
    """
    at = Session(
        run.model.rollout_setup(),
        run.model.rollout_view(params),
        sampling=Sampling.of(run.config.rollout.sampling),
        key=run.model.key(ROLLOUT),
        step=step,
    )
    if guide:
        trajectories, given = guidance.roll_out(run, guide, at, prompts, step)
        return trajectories, at.stats, given
    rows = at.submit(groups.group_requests(prompts, run.config.rollout.group_size))
    at.run()
    return at.trajectories(rows), at.stats, None


def _look_before(
    run: Run,
    learner: Learner,
    stream: PromptStream,
    guide: Guide | None,
    workdir: pathlib.Path,
) -> None:
    """Measures what can only be measured of the policy that the run starts from."""
    _evaluate(run, learner, workdir, "test", "before")
    if run.config.evaluation.every_steps:
        _evaluate(run, learner, workdir, "validation", "step_000000")
    view = run.model.rollout_view(learner.state.params)
    if guide:
        ladder.climb(run, guide, view, stream.prompts, workdir)
    if run.config.rollout.order is choices.Order.PASS_RATE:
        stream.set_tiers(difficulty.measure(run, view, stream.prompts, workdir))


def _evaluate(
    run: Run, learner: Learner, workdir: pathlib.Path, split: str, name: str
) -> dict[str, float]:
    """Evaluates, writes evaluation/NAME.json and returns its headline as metrics.

    Returns nothing where the split is empty.
    """
    problems = evaluation.problems(run, split)
    if not problems:
        return {}
    view = run.model.rollout_view(learner.state.params)
    step = int(learner.state.step)
    result, samples = evaluation.evaluate(
        run, view, problems, name=name, split=split, step=step
    )
    logbook.write_evaluation(workdir, result, samples)
    return evaluation.headline(result)


def _summarise(
    workdir: pathlib.Path,
    step: int,
    stopped: str,
    timer: StepTimer,
    generated_tokens: int,
) -> dict[str, Any]:
    """Writes summary.json: how far the run came, at what cost, and what it changed."""
    evaluations = {
        name: logbook.read_evaluation(workdir, name) for name in ("before", "after")
    }
    after = evaluations["after"]
    if after and after["step"] != step:
        evaluations["after"] = None  # of a run that was shorter
    seconds = timer.totals
    summary = {
        "steps": step,
        "stopped": stopped,
        "seconds": seconds | {"total": sum(seconds.values())},
        "generated_tokens": generated_tokens,
        "tokens_per_second": generated_tokens / max(seconds.get("rollout", 0), 1e-9),
        "evaluation": evaluations,
    }
    logbook.write_json(workdir / "summary.json", summary)
    return summary


def _print_results(workdir: pathlib.Path, summary: dict[str, Any]) -> None:
    """Prints what the run changed, some of its last completions, and the report."""
    evaluations = summary["evaluation"]
    rollouts = workdir / "rollouts" / f"{summary['steps']:06d}.jsonl"
    lines = rollouts.read_text().splitlines() if rollouts.exists() else []
    terminal.print_results(
        evaluations["before"],
        evaluations["after"],
        terminal.choose_samples([json.loads(line) for line in lines]),
        workdir / "report.html",
    )
    if summary["stopped"] != "finished":
        terminal.say(
            f"stopped after step {summary['steps']} ({summary['stopped']}): the same "
            "command goes on from there"
        )
