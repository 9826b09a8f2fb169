"""The method, top to bottom.

    prompts -> groups of completions -> rewards -> advantages -> updates -> metrics

with a checkpoint and an evaluation now and then. Running the same command again
resumes: every number from a checkpoint on is what it would have been without the stop.
"""

import contextlib
import pathlib
from typing import Any

import jax
import numpy as np

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.policy import transformer
from grpo_jax.policy.compilation import CompileLog
from grpo_jax.reporting import page, terminal
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import (
    collection,
    difficulty,
    episode_metrics,
    evaluation,
    expansion,
    ladder,
    logbook,
    metric_names,
    monitors,
    planning,
    rollout_files,
    seeding,
    speed,
    stepmetrics,
    summary,
    tripwires,
    warm_start,
)
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.checkpoint import Checkpoints
from grpo_jax.trainer.learner import Learner
from grpo_jax.trainer.metrics import MetricsWriter
from grpo_jax.trainer.policies import open_checkpoints, starting_params
from grpo_jax.trainer.position import Position
from grpo_jax.trainer.run import Run
from grpo_jax.trainer.stopping import Stopper

_ONCE_IT_ANSWERS = "Once it answers, the same command goes on from the last checkpoint"


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
    metric_names.check(config)
    planning.check(runs.plan(config))
    with (
        Stopper(budget_seconds) as stopper,
        contextlib.closing(runs.build(config)) as run,
        jax.set_mesh(run.model.mesh),
    ):
        # Only what could be built is written down as this workdir's configuration.
        logbook.open_workdir(workdir, config)
        with contextlib.closing(open_checkpoints(config, workdir)) as checkpoints:
            ended = _train(run, workdir, checkpoints, stopper)
    page.write_report([workdir], workdir / "report.html")
    summary.show(workdir, ended)
    return ended


def _train(
    run: Run, workdir: pathlib.Path, checkpoints: Checkpoints, stopper: Stopper
) -> dict[str, Any]:
    config = run.config
    position = Position.start(run)
    if position.stream.dropped:
        terminal.say(
            f"{position.stream.dropped} of {len(run.task.train)} training prompts have "
            f"more than {config.rollout.max_prompt_tokens} tokens and are left out"
        )
    # Start from the newest checkpoint, else the warm start, else the given weights.
    if checkpoints.latest_step is None and config.warm_start.steps:
        warm_start.warm_start(
            run, position.stream.prompts, workdir, stopper, position.timer
        )
        if stopper.reason:
            return summary.write(workdir, 0, stopper.reason, position)
    learner = _start(run, workdir, checkpoints, position)
    if int(learner.state.step) == 0:
        with position.timer("evaluation"):
            _look_before(run, learner, position, workdir)
    elif config.rollout.order is choices.Order.PASS_RATE:
        position.stream.set_tiers(difficulty.read(workdir))

    stopped = _take_steps(run, workdir, checkpoints, learner, position, stopper)
    step = int(learner.state.step)
    if stopped in ("finished", summary.STALLED) and step:
        with position.timer("evaluation"):
            _evaluate(run, learner.state.params, workdir, "test", "after", step)
            _evaluate_best(run, checkpoints, workdir, step)
    return summary.write(workdir, step, stopped, position)


def _start(
    run: Run, workdir: pathlib.Path, checkpoints: Checkpoints, position: Position
) -> Learner:
    """Returns the policy to go on with, and sets the position that belongs to it."""
    fresh = checkpoints.latest_step is None
    params = None
    if fresh or run.config.objective.kl_coef:
        params = starting_params(run.model, workdir)
    learner = Learner(run, params, workdir)
    if not fresh:
        position.set_state(learner.restore(checkpoints))
    return learner


def _take_steps(
    run: Run,
    workdir: pathlib.Path,
    checkpoints: Checkpoints,
    learner: Learner,
    position: Position,
    stopper: Stopper,
) -> str:
    """Takes the steps that are left, as many as may be; returns why they ended."""
    config = run.config
    first, last = int(learner.state.step) + 1, config.trainer.steps
    best, patience = config.checkpoint.best_metric, config.evaluation.patience
    wires = tripwires.Tripwires(
        config, workdir, resume_step=first - 1, state=position.tripwires
    )
    with (
        MetricsWriter(workdir, resume_step=first - 1) as writer,
        contextlib.closing(CompileLog()) as compiled,
        terminal.Progress("GRPO", last, start_step=first - 1) as progress,
    ):
        position.timer.metrics()  # what came before is no part of the first step
        stopper.lap()
        for step in range(first, last + 1):
            if position.stalled(patience):
                return summary.STALLED
            if position.spent(config.trainer.max_generated_tokens):
                return "finished"
            before = position.get_state()
            try:
                metrics, batch = _step(run, workdir, learner, position, step)
            except ConnectionError as error:
                # Tools of agents may go away; what was learned until then must not.
                if learner.saved_step < step - 1 == int(learner.state.step):
                    learner.save(checkpoints, before, {})
                raise ConnectionError(f"{error}. {_ONCE_IT_ANSWERS}") from error
            metrics |= compiled.take()
            writer.write(step, metrics)
            progress.update(step, metrics)
            for name in wires.observe(step, metrics, progress.say):
                rollout_files.write_tripped(workdir, name, step, batch)
            position.tripwires = wires.get_state()
            stopper.reason = stopper.reason or wires.reason
            stopping = stopper.should_stop()
            due = step == last or step % config.checkpoint.every_steps == 0
            due = due or position.spent(config.trainer.max_generated_tokens)
            if due or stopping or best in metrics:
                learner.save(checkpoints, position.get_state(), metrics)
            if stopping and step < last:
                return stopper.reason
    return "finished"


def _step(
    run: Run, workdir: pathlib.Path, learner: Learner, position: Position, step: int
) -> tuple[dict[str, float], rollout_files.Batch]:
    """Takes one step, which is the method; returns its metrics and what it wrote."""
    config, timer = run.config, position.timer
    collected = collection.collect(run, learner.state.params, position, step)
    groups, trained, stats = collected.groups, collected.trajectories, collected.stats
    prompts, completions, rewards = groups.prompts, groups.completions, groups.rewards
    with timer("update"):
        advantages = batches.advantages_of(collected.totals, config)
        metrics = learner.learn(trained, collected.totals, advantages)
    metrics |= collected.charges.metrics
    if run.environment:
        metrics |= run.environment.take_metrics()
        metrics |= episode_metrics.of_step(completions, rewards, config)

    every = config.evaluation.every_steps
    if every and step % every == 0:
        name = f"step_{step:06d}"
        with timer("evaluation"):
            metrics |= _evaluate(
                run, learner.state.params, workdir, "validation", name, step
            )
        if config.checkpoint.best_metric in metrics:
            position.validations.append(metrics[config.checkpoint.best_metric])
    metrics |= run.task.take_counts()
    metrics |= timer.metrics()
    metrics |= stepmetrics.reward_metrics(rewards, advantages, config)
    metrics |= stepmetrics.rollout_metrics(
        groups.trajectories, prompts, stats.sampled_tokens
    )
    metrics |= stepmetrics.easy_metrics(prompts, config.rollout)
    metrics |= monitors.metrics(completions, rewards, config)
    metrics |= speed.speed_metrics(config, run.model.arch, trained, stats, metrics)
    metrics |= position.stages.observe(metrics["rollout/truncated_fraction"])
    if position.guide and groups.given:
        metrics |= position.guide.observe(
            prompts, groups.given, rewards, groups.trajectories
        )
    if config.expansion.continuations:
        metrics |= expansion.metrics(groups.expansion, len(prompts))
    if config.experts.below:
        metrics |= seeding.metrics(groups.seeding, len(prompts), config.experts)
    position.generated_tokens += int(metrics["rollout/generated_tokens"])
    logged = config.trainer.logged_groups
    every_advantage = np.full(len(completions), np.nan)  # of rows not trained on
    every_advantage[collected.rows] = advantages
    batch = rollout_files.Batch(
        prompts,
        completions,
        groups.trajectories,
        rewards,
        every_advantage,
        run.model.tokenizer,
        groups.substitutes,
        collected.charges.rows,
    )
    shown = prompts if logged < 0 else prompts[:logged]
    rollout_files.write_rollouts(workdir, step, batch._replace(prompts=shown))
    return metrics, batch


def _look_before(
    run: Run, learner: Learner, position: Position, workdir: pathlib.Path
) -> None:
    """Measures what can only be measured of the policy that the run starts from."""
    params, stream = learner.state.params, position.stream
    _evaluate(run, params, workdir, "test", "before", 0)
    if run.config.evaluation.every_steps:
        _evaluate(run, params, workdir, "validation", "step_000000", 0)
    view = run.model.rollout_view(params)
    if position.guide:
        ladder.climb(run, position.guide, view, stream.prompts, workdir)
    if run.config.rollout.order is choices.Order.PASS_RATE:
        stream.set_tiers(difficulty.measure(run, view, stream.prompts, workdir))


def _evaluate(
    run: Run,
    params: transformer.Params,
    workdir: pathlib.Path,
    split: str,
    name: str,
    step: int,
) -> dict[str, float]:
    """Evaluates, writes evaluation/NAME.json and returns its headline as metrics.

    Returns nothing where the split is empty.
    """
    problems = evaluation.problems(run, split)
    if not problems:
        return {}
    view = run.model.rollout_view(params)
    result, samples = evaluation.evaluate(
        run, view, problems, name=name, split=split, step=step
    )
    logbook.write_evaluation(workdir, result, samples)
    return evaluation.headline(result)


def _evaluate_best(
    run: Run, checkpoints: Checkpoints, workdir: pathlib.Path, last_step: int
) -> None:
    """Evaluates the best checkpoint on the test problems, unless it is the last one."""
    for kind in ("json", "jsonl"):  # of a run that was shorter
        (workdir / "evaluation" / f"best.{kind}").unlink(missing_ok=True)
    checkpoints.wait()
    step = checkpoints.best_step
    if step in (None, last_step) or not run.task.test:
        return
    params = checkpoints.restore_params(run.model.abstract_params(), step)
    _evaluate(run, params, workdir, "test", "best", step)
