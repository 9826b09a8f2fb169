"""Supervised training on worked solutions, so that GRPO has something to sharpen."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from grpo_jax.data.pipeline import EncodedPrompt, demonstration_batches
from grpo_jax.policy import sharding
from grpo_jax.records import Origin, TrainBatch
from grpo_jax.reporting.terminal import Progress
from grpo_jax.trainer import optimizer as optimizers
from grpo_jax.trainer.batch import padding_fraction, supervised_weights
from grpo_jax.trainer.metrics import MetricsWriter, StepTimer
from grpo_jax.trainer.policies import open_warm_start
from grpo_jax.trainer.run import Run
from grpo_jax.trainer.scorer import Scorer
from grpo_jax.trainer.step import (
    Update,
    abstract_state,
    init_state,
    supervised_loss,
)
from grpo_jax.trainer.stopping import Stopper

# Between checkpoints: a crash costs at most this many supervised steps.
_SAVE_STEPS = 500


def warm_start(
    run: Run,
    prompts: Sequence[EncodedPrompt],
    workdir: pathlib.Path,
    stopper: Stopper,
    timer: StepTimer,
) -> None:
    """Trains on demonstrations, leaving the weights in WORKDIR/warm_start.

    Resumes from there; returns with fewer steps done if `stopper` says so.
    """
    config = run.config.warm_start
    with contextlib.closing(open_warm_start(workdir)) as checkpoints:
        if checkpoints.latest_step == config.steps:
            return
        schedule = optimizers.make_schedule(config.optimizer, config.steps)
        optimizer = optimizers.make_optimizer(config.optimizer, schedule)
        mesh = run.model.mesh
        abstract = abstract_state(run.model.abstract_params(), optimizer, mesh)
        if checkpoints.latest_step is None:
            state = init_state(run.model.initial_params(), optimizer, mesh)
        else:
            state, _ = checkpoints.restore(abstract)
        first = int(state.updates) + 1
        update = Update(_scorer(run), supervised_loss, optimizer, schedule, abstract)
        batches = _batches(run, prompts, first - 1)
        writer = MetricsWriter(workdir, resume_step=first - 1, name="warm_start")
        with writer, _progress(config.steps, first) as progress:
            for step in range(first, config.steps + 1):
                with timer("warm_start"):
                    micros = _micro_batches(run, next(batches))
                    state, metrics = update(state, sharding.put_rows(micros, mesh))
                    metrics = jax.device_get(metrics)
                metrics["loss"] = metrics.pop("loss/total")
                metrics["trainer/padding_fraction"] = padding_fraction(micros)
                metrics |= timer.metrics()
                writer.write(step, metrics)
                progress.update(step, metrics)
                stopping = stopper.should_stop()
                if stopping or step == config.steps or step % _SAVE_STEPS == 0:
                    checkpoints.save(step, state, {"step": step}, {})
                if stopping:
                    return


def _progress(steps: int, first: int) -> Progress:
    return Progress("warm start", steps, start_step=first - 1)


def _scorer(run: Run) -> Scorer:
    """Returns the scorer of whole solutions, at temperature 1."""
    return dataclasses.replace(
        run.scorer(),
        temperature=1.0,
        completion_columns=run.model.arch.max_context_tokens,
    )


def _micro_batches(run: Run, batch: TrainBatch) -> list[TrainBatch]:
    return run.micro_batches(
        batch,
        widest=batch.tokens.shape[1],  # every batch is as wide as the longest solution
        budget_tokens=run.config.warm_start.micro_batch_tokens,
    )


def _batches(
    run: Run, prompts: Sequence[EncodedPrompt], first: int
) -> Iterator[TrainBatch]:
    """Yields batches of demonstrations, the tokens of each solution in the loss."""
    config = run.config.warm_start
    shown = prompts[: config.demonstrations or len(prompts)]
    solutions = run.task.demonstrate(
        [prompt.example for prompt in shown], np.random.default_rng(run.config.seed)
    )
    raw = demonstration_batches(
        shown,
        solutions,
        run.model.tokenizer,
        batch_size=config.batch_size,
        seed=run.config.seed,
        first_batch=first,
    )
    for rows in raw:
        if rows.tokens.shape[1] > run.model.arch.max_context_tokens:
            raise ValueError(
                f"the longest demonstration has {rows.tokens.shape[1]} tokens and the "
                f"model's context is {run.model.arch.max_context_tokens}: shorten the "
                "solutions, or set config.warm_start.steps=0"
            )
        columns = np.arange(rows.tokens.shape[1])[None]
        origins = np.where(rows.learned, Origin.EXPERT, Origin.OBSERVATION)
        origins = origins.astype(np.uint8)
        origins[columns < rows.prompt_lengths[:, None]] = Origin.PROMPT
        origins[columns >= rows.lengths[:, None]] = Origin.PAD
        yield TrainBatch(
            tokens=rows.tokens,
            origins=origins,
            prompt_lengths=rows.prompt_lengths,
            advantages=np.zeros(len(origins), np.float32),
            loss_weights=supervised_weights(origins),
            behavior_log_probs=np.zeros(origins.shape, np.float32),
        )
