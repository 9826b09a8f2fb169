"""Saving and restoring a run, through Orbax: atomic, asynchronous, with best-of.

A checkpoint is the whole state of the run between two steps: weights, optimizer, step,
and a JSON `position` (data iterator, seed, controllers). One that was being written
when the process died is never seen again.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from grpo_jax import choices
from grpo_jax.records import TrainState


class _Always:
    """The loop decides when to save."""

    def should_save(self, *_: Any, **__: Any) -> bool:
        return True


class _Scored(NamedTuple):
    """A checkpoint that was validated."""

    step: int
    value: float
    error: float  # its standard error, 0 where the rule does not ask for it


class _KeepBest:
    """Keeps the best checkpoint, and those that can still become it.

    As the highest value rises, the first one within its standard error comes later: it
    is always one that was the highest when it was made.
    """

    def should_preserve(self, checkpoints: Sequence[Any], **_: Any) -> list[bool]:
        scored = _scored(checkpoints)
        lowest = _lowest_of_the_best(scored)
        kept, highest = set(), -math.inf
        for each in scored:
            if each.value > highest and each.value >= lowest:
                kept.add(each.step)
            highest = max(highest, each.value)
        return [info.step in kept for info in checkpoints]


def _scored(checkpoints: Sequence[Any]) -> list[_Scored]:
    """Returns the checkpoints that were validated, oldest first."""
    scored = [
        _Scored(info.step, info.metrics["value"], info.metrics["error"])
        for info in checkpoints
        if isinstance(info.metrics, dict)
    ]
    return sorted(scored)


def _lowest_of_the_best(scored: Sequence[_Scored]) -> float:
    """Returns the value from which on a checkpoint is as good as the highest."""
    highest = max(scored, key=lambda each: each.value, default=None)
    return highest.value - highest.error if highest else math.inf


class Checkpoints:
    """The checkpoints of one run, in a directory."""

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep_last: int,
        best_metric: str,
        best_rule: choices.Best = choices.Best.HIGHEST,
        reading: bool = False,
    ):
        """Opens the directory and clears what an interrupted save left.

        Args:
          directory: made if missing.
          keep_last: how many of the newest are kept.
          best_metric: the best checkpoint by this is kept too; "" keeps none for its
            metric.
          best_rule: what is the best, for which `METRIC_standard_error` may be read.
          reading: nothing is cleared, since another process may be saving.
        """
        policies = ocp.training.preservation_policies
        keep: list[Any] = [policies.LatestN(keep_last)]
        self._best_metric, self._best_rule = best_metric, best_rule
        if best_metric:
            keep.append(_KeepBest())
        # Orbax's own policies do not match its own protocol in the eyes of a checker.
        preservation: Any = policies.AnyPreservationPolicy(keep)
        self._checkpointer = ocp.training.Checkpointer(
            str(directory.absolute()),
            preservation_policy=preservation,
            save_decision_policy=_Always(),
            cleanup_tmp_directories=not reading,
        )

    @property
    def latest_step(self) -> int | None:
        """The newest complete checkpoint, None without one."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    @property
    def best_step(self) -> int | None:
        """The best checkpoint by the rule, the earliest of equals; None without one.

        What is being saved counts from when it is on the disk.
        """
        if not self._best_metric:
            return None
        scored = _scored(self._checkpointer.checkpoints)
        lowest = _lowest_of_the_best(scored)
        return next((each.step for each in scored if each.value >= lowest), None)

    def save(
        self,
        step: int,
        state: TrainState,
        position: dict[str, Any],
        metrics: Mapping[str, float],
    ) -> None:
        """Starts saving; returns once the arrays may change, before the disk is done.

        `metrics` may lack the best metric, or hold NaN: then this checkpoint is not a
        candidate.
        """
        value, error = metrics.get(self._best_metric, math.nan), 0.0
        if self._best_rule is choices.Best.ONE_STANDARD_ERROR:
            error = metrics.get(f"{self._best_metric}_standard_error", 0.0)
            error = error if math.isfinite(error) else 0.0  # of a single problem
        scored: Any = {"value": value, "error": error}
        if not math.isfinite(value):
            scored = None
        items = {**_items(state), "position": position}
        self._checkpointer.save_checkpointables_async(step, items, metrics=scored)

    def restore(
        self, abstract: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state, in the shardings of `abstract`, and the position.

        Args:
          abstract: shapes, dtypes and shardings (`step.abstract_state`).
          step: which checkpoint; None is the newest.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: it holds a model of another shape.
        """
        loaded = self._load(step, {**_items(abstract), "position": None})
        state = TrainState(params=loaded["params"], **loaded["optimizer"])
        return state, loaded["position"]

    def restore_params(self, abstract: Any, step: int | None = None) -> Any:
        """Returns the weights alone, reading nothing else; see `restore`."""
        return self._load(step, {"params": abstract})["params"]

    def _load(self, step: int | None, wanted: dict[str, Any]) -> dict[str, Any]:
        known = [info.step for info in self._checkpointer.checkpoints]
        step = self.latest_step if step is None else step
        if step not in known:
            raise FileNotFoundError(
                f"{self._checkpointer.directory} has no checkpoint of step {step}; it "
                f"has {known or 'none'}"
            )
        metadata = self._checkpointer.checkpointables_metadata(step).metadata
        for item, abstract in wanted.items():
            if abstract is not None:
                self._check_shapes(step, metadata[item], abstract)
        return self._checkpointer.load_checkpointables(step, wanted)

    def wait(self) -> None:
        """Waits for what is being saved."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Waits for what is being saved, and frees what was held."""
        self._checkpointer.close()

    def _check_shapes(self, step: int, metadata: Any, abstract: Any) -> None:
        saved = {_name(path): leaf.shape for path, leaf in _leaves(metadata)}
        wanted = {_name(path): leaf.shape for path, leaf in _leaves(abstract)}
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise ValueError(
                    f"checkpoint {step} in {self._checkpointer.directory} is of "
                    f"another model: {name} is {saved.get(name, 'absent')} there and "
                    f"{wanted.get(name, 'absent')} in this configuration. Use the "
                    "configuration it was made with, or another --workdir"
                )


def _items(state: TrainState) -> dict[str, Any]:
    """Returns what is saved apart, so that weights can be read without the rest."""
    rest = {name: getattr(state, name) for name in ("opt_state", "step", "updates")}
    return {"params": state.params, "optimizer": rest}


def _leaves(tree: Any) -> list[tuple[tuple, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _name(path: tuple) -> str:
    keys = (
        getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))
        for key in path
    )
    return "/".join(map(str, keys))
