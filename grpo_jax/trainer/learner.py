"""The policy that learns: its state, its reference, and the updates of one step."""

import dataclasses
import functools
import pathlib
from typing import Any

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
from grpo_jax.trainer.step import (
    abstract_state,
    grpo_loss,
    init_state,
    make_update,
    shardings_of,
)


class Learner:
    """Holds the train state and moves it.

    Attributes:
      state: the current one; the arrays of the one before are given up.
      skipped_in_a_row: updates skipped since the last finite one.
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
        self._scorer = run.scorer()
        self._updates_per_step = (
            config.trainer.num_iterations * config.trainer.minibatches
        )
        updates = config.trainer.steps * self._updates_per_step
        schedule = optimizers.make_schedule(config.optimizer, updates)
        optimizer = optimizers.make_optimizer(config.optimizer, schedule)
        self.skipped_in_a_row = 0
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
        loss = grpo_loss(config.objective)
        self._update = jax.jit(
            make_update(self._scorer, loss, optimizer, schedule, run.model.mesh),
            donate_argnums=0,
            out_shardings=(shardings_of(self._abstract), None),
        )
        self._score = jax.jit(
            functools.partial(self._scorer.score, mesh=run.model.mesh)
        )

    def save(
        self,
        checkpoints: Checkpoints,
        position: dict[str, Any],
        metrics: dict[str, float],
    ) -> None:
        """Starts saving the state with the run's position."""
        position = {**position, "skipped_in_a_row": self.skipped_in_a_row}
        checkpoints.save(int(self.state.step), self.state, position, metrics)

    def restore(self, checkpoints: Checkpoints) -> dict[str, Any]:
        """Takes the newest checkpoint's state; returns the position saved with it."""
        self.state = self._abstract  # never two states at once
        self.state, position = checkpoints.restore(self._abstract)
        self.skipped_in_a_row = position["skipped_in_a_row"]
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
        parts = self._minibatches(trajectories, rewards, advantages)
        for _ in range(trainer.num_iterations):
            for part in parts:
                self.state, values = self._update(self.state, part)
                metrics.append(jax.device_get(values))
                self._guard(metrics[-1], part, len(metrics))
        self.state = self.state.replace(step=self.state.step + 1)
        return _merge(metrics)

    def _minibatches(
        self,
        trajectories: Trajectories,
        rewards: Float[np.ndarray, " B"],
        advantages: Float[np.ndarray, " B"],
    ) -> list[TrainBatch]:
        """Returns the rows of each update, on the devices, scored as needed.

        Loss weights are normalised over each update's own rows. With several updates
        the first one's policy is what the later ones are measured against.
        """
        config = self._run.config
        count = len(rewards) // config.trainer.minibatches
        parts = []
        for first in range(0, len(rewards), count):
            rows = slice(first, first + count)
            part = batches.make_batch(
                jax.tree.map(lambda x, rows=rows: x[rows], trajectories),
                rewards[rows],
                advantages[rows],
                config.objective,
                config.rollout.max_completion_tokens,
            )
            part = sharding.put_rows(part, self._run.model.mesh)
            if self._reference is not None:
                scores = self._score(self._reference, part)
                part = part.replace(reference_log_probs=scores)
            if self._updates_per_step > 1:
                scores = self._score(self.state.params, part)
                part = part.replace(old_log_probs=scores)
            parts.append(part)
        return parts

    def _guard(self, metrics: dict[str, Any], part: TrainBatch, update: int) -> None:
        """Counts a skipped update, keeps its batch, and gives up after too many."""
        if not metrics["optimizer/skipped"]:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        folder = self._workdir / "nonfinite"
        folder.mkdir(exist_ok=True)
        step = int(self.state.step) + 1
        path = folder / f"step_{step:06d}_update_{update}.npz"
        arrays = {
            field.name: np.asarray(value)
            for field in dataclasses.fields(part)
            if (value := getattr(part, field.name)) is not None
        }
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
    """Returns a step's metrics: means over updates, maxima of maxima, skips counted.

    Numbers of updates that were skipped because they are not finite are left out, as
    long as one remains.
    """
    merged = {}
    for name in metrics[0]:
        values = np.array([each[name] for each in metrics], np.float64)
        values = values[np.isfinite(values)] if np.isfinite(values).any() else values
        if name == "optimizer/skipped":
            merged[name] = float(values.sum())
        else:
            maximal = name.endswith("_max")
            merged[name] = float(values.max() if maximal else values.mean())
    return merged
