"""The policy that learns: its state, its reference, and the updates of one step."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from grpo_jax.policy import sharding, transformer
from grpo_jax.records import TrainBatch, Trajectories
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import optimizer as optimizers
from grpo_jax.trainer.checkpoint import Checkpoints
from grpo_jax.trainer.run import Run
from grpo_jax.trainer.step import Update, abstract_state, grpo_loss, init_state


class _Part(NamedTuple):
    """The rows of one update.

    Attributes:
      batch: on the host, in the order of the rollout.
      micros: its micro-batches on the devices, with the log-probs the loss needs.
      padding_fraction: of the slots of these.
    """

    batch: TrainBatch
    micros: list[TrainBatch]
    padding_fraction: float


class Learner:
    """Holds the train state and moves it.

    Attributes:
      state: the current one; the arrays of the one before are given up.
      skipped_in_a_row: updates skipped since the last finite one.
      saved_step: of the checkpoint that was saved or restored last.
    """

    def __init__(
        self, run: Run, params: transformer.Params | None, workdir: pathlib.Path
    ):
        """Makes the state before the first update.

        Args:
          run: what the configuration built.
          params: starting weights, which are also the reference; None where there is
            no reference and `restore` will follow, so that no weights are made twice.
          workdir: where the batch of a non-finite update is dumped.
        """
        config = run.config
        self._run, self._workdir = run, workdir
        self._updates_per_step = (
            config.trainer.num_iterations * config.trainer.minibatches
        )
        updates = config.trainer.steps * self._updates_per_step
        schedule = optimizers.make_schedule(config.optimizer, updates)
        optimizer = optimizers.make_optimizer(config.optimizer, schedule)
        self.skipped_in_a_row = self.saved_step = 0
        self._reference = None
        if config.objective.kl_coef:
            assert params is not None, "the reference is the starting weights"
            # A copy even where the dtype stays: updates give their input's arrays away.
            dtype = config.policy.dtype.value
            self._reference = jax.tree.map(
                lambda x: jnp.array(x, dtype, copy=True), params
            )
        self._abstract = abstract_state(
            run.model.abstract_params(), optimizer, run.model.mesh
        )
        self.state = self._abstract
        if params is not None:
            self.state = init_state(params, optimizer, run.model.mesh)
        guided = config.guidance if config.guidance.fraction else None
        experts = config.experts if config.experts.below else None
        loss = grpo_loss(config.objective, guided, experts)
        self._update = Update(run.scorer(), loss, optimizer, schedule, self._abstract)

    def save(
        self,
        checkpoints: Checkpoints,
        position: dict[str, Any],
        metrics: dict[str, float],
    ) -> None:
        """Starts saving the state with the run's position."""
        position = {**position, "skipped_in_a_row": self.skipped_in_a_row}
        self.saved_step = int(self.state.step)
        checkpoints.save(self.saved_step, self.state, position, metrics)

    def restore(self, checkpoints: Checkpoints) -> dict[str, Any]:
        """Takes the newest checkpoint's state; returns the position saved with it."""
        self.state = self._abstract  # never two states at once
        self.state, position = checkpoints.restore(self._abstract)
        self.skipped_in_a_row = position["skipped_in_a_row"]
        self.saved_step = int(self.state.step)
        return position

    def learn(
        self,
        trajectories: Trajectories,
        rewards: Float[np.ndarray, " B"],
        advantages: Float[np.ndarray, " B"],
    ) -> dict[str, float]:
        """Takes the updates of one rollout and returns their metrics.

        Raises:
          FloatingPointError: too many updates in a row were not finite.
        """
        metrics = []
        trainer = self._run.config.trainer
        parts = self._parts(trajectories, rewards, advantages)
        for _ in range(trainer.num_iterations):
            for part in parts:
                self.state, values = self._update(self.state, part.micros)
                metrics.append(jax.device_get(values))
                self._guard(metrics[-1], part, len(metrics))
        self.state = self.state.replace(step=self.state.step + 1)
        padding = np.mean([part.padding_fraction for part in parts])
        return _merge(metrics) | {"trainer/padding_fraction": float(padding)}

    def _parts(
        self,
        trajectories: Trajectories,
        rewards: Float[np.ndarray, " B"],
        advantages: Float[np.ndarray, " B"],
    ) -> list[_Part]:
        """Returns the rows of each update, scored as needed.

        Loss weights are normalised over each update's own rows.
        """
        config = self._run.config
        count = len(rewards) // config.trainer.minibatches
        rollout = config.rollout
        parts = []
        for first in range(0, len(rewards), count):
            rows = slice(first, first + count)
            batch = batches.make_batch(
                jax.tree.map(lambda x, rows=rows: x[rows], trajectories),
                rewards[rows],
                advantages[rows],
                config.objective,
                rollout.max_completion_tokens,
                config.guidance.loss,
                rollout.group_size,
                config.experts.loss if config.experts.below else None,
            )
            micros = self._run.micro_batches(
                batch,
                widest=rollout.max_prompt_tokens + rollout.max_completion_tokens,
                budget_tokens=config.trainer.micro_batch_tokens,
            )
            padding = batches.padding_fraction(micros)
            parts.append(_Part(batch, self._score(micros), padding))
        return parts

    def _score(self, micros: list[TrainBatch]) -> list[TrainBatch]:
        """Puts micro-batches on the devices, with the log-probs the loss needs.

        With several updates the first one's policy is what the later ones are measured
        against.
        """
        update, several = self._update, self._updates_per_step > 1
        params = update.cast(self.state.params) if several else None
        scored = []
        for micro in micros:
            micro = sharding.put_rows(micro, self._run.model.mesh)
            rows = micro.tokens, micro.prompt_lengths
            if self._reference is not None:
                scores = update.score(self._reference, *rows)
                micro = micro.replace(reference_log_probs=scores)
            if params is not None:
                micro = micro.replace(old_log_probs=update.score(params, *rows))
            scored.append(micro)
        return scored

    def _guard(self, metrics: dict[str, Any], part: _Part, update: int) -> None:
        """Counts a skipped update, keeps its batch, and gives up after too many."""
        if not metrics["optimizer/skipped"]:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        folder = self._workdir / "nonfinite"
        folder.mkdir(exist_ok=True)
        step = int(self.state.step) + 1
        path = folder / f"step_{step:06d}_update_{update}.npz"
        arrays = {}
        for field in dataclasses.fields(TrainBatch):
            values = [getattr(micro, field.name) for micro in part.micros]
            if getattr(part.batch, field.name) is not None:
                arrays[field.name] = getattr(part.batch, field.name)
            elif values[0] is not None:
                values = jax.device_get(values)
                arrays[field.name] = batches.in_order(part.batch, values)
        np.savez_compressed(path, allow_pickle=False, **arrays)
        if self.skipped_in_a_row >= self._run.config.trainer.max_nonfinite_updates:
            raise FloatingPointError(
                f"step {step}: {self.skipped_in_a_row} updates in a row had a loss "
                f"({metrics['loss/total']}) or gradient norm "
                f"({metrics['optimizer/gradient_norm']}) that is not finite; weights "
                f"are those of before. The last batch is in {path}; lower "
                "config.optimizer.learning_rate or raise "
                "config.trainer.max_nonfinite_updates"
            )


def _merge(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Returns a step's metrics: means, extremes of extremes, skips counted.

    Numbers of updates that were skipped because they are not finite are left out, as
    long as one remains.
    """
    merged = {}
    for name in metrics[0]:
        values = np.array([each[name] for each in metrics], np.float64)
        values = values[np.isfinite(values)] if np.isfinite(values).any() else values
        if name == "optimizer/skipped":
            merged[name] = float(values.sum())
        elif name.endswith("_min"):
            merged[name] = float(values.min())
        else:
            maximal = name.endswith(("_max", "_p95", "_p99"))
            merged[name] = float(values.max() if maximal else values.mean())
    return merged
