"""Weights to look at: of a run's checkpoints, or those it starts from."""

import contextlib
import hashlib
import pathlib

import jax
import numpy as np

from grpo_jax.config import TrainConfig
from grpo_jax.policy import transformer
from grpo_jax.trainer.checkpoint import Checkpoints
from grpo_jax.trainer.model import Model

# Values of each array that stand for it.
_DIGESTED = 256


def open_checkpoints(
    config: TrainConfig, workdir: pathlib.Path, *, reading: bool = False
) -> Checkpoints:
    """Returns the checkpoints of a run."""
    return Checkpoints(
        workdir / "checkpoints",
        keep_last=config.checkpoint.keep_last,
        best_metric=config.checkpoint.best_metric,
        best_rule=config.checkpoint.best_rule,
        reading=reading,
    )


def open_warm_start(workdir: pathlib.Path, *, reading: bool = False) -> Checkpoints:
    """Returns the warm start's own checkpoints: its last state, where GRPO begins."""
    return Checkpoints(
        workdir / "warm_start", keep_last=1, best_metric="", reading=reading
    )


def starting_params(model: Model, workdir: pathlib.Path) -> transformer.Params:
    """Returns the weights GRPO starts from: warm-started ones, or the given ones.

    Raises:
      FileNotFoundError: the warm start has not ended.
    """
    steps = model.config.warm_start.steps
    if not steps:
        return model.initial_params()
    missing = FileNotFoundError(
        f"{workdir} holds no warm start of {steps} steps: train first, or set "
        "config.warm_start.steps=0 to take the weights as they are"
    )
    if not (workdir / "warm_start").is_dir():
        raise missing
    with contextlib.closing(open_warm_start(workdir, reading=True)) as checkpoints:
        if checkpoints.latest_step != steps:
            raise missing
        return checkpoints.restore_params(model.abstract_params(), steps)


def load_params(
    model: Model, workdir: pathlib.Path, which: str
) -> tuple[transformer.Params, int]:
    """Returns weights and the step they were saved at.

    Args:
      model: the configured model.
      workdir: of the run.
      which: "latest", "best", "start" or a step; "" is the latest checkpoint if there
        is one, else the start.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: `which` is something else.
    """
    if which not in ("", "latest", "best", "start") and not which.isdecimal():
        raise ValueError(
            f"--checkpoint is {which!r}: use latest, best, start or a step"
        )
    has_any = (workdir / "checkpoints").is_dir()
    if which == "start" or (which == "" and not has_any):
        return starting_params(model, workdir), 0
    if not has_any:
        raise FileNotFoundError(f"{workdir} has no checkpoint: train first")
    opened = open_checkpoints(model.config, workdir, reading=True)
    with contextlib.closing(opened) as checkpoints:
        match which:
            case "best":
                step = checkpoints.best_step
            case "" | "latest":
                step = checkpoints.latest_step
            case _:
                step = int(which)
        if step is None and which == "":
            return starting_params(model, workdir), 0
        if step is None:
            raise FileNotFoundError(f"{workdir} has no {which} checkpoint yet")
        return checkpoints.restore_params(model.abstract_params(), step), step


def digest(params: transformer.Params) -> str:
    """Returns a short identity of weights: of values spread over every array.

    An update of the optimizer moves nearly every weight, so that a few of each tell two
    states apart. They are compared bit by bit and do not depend on the mesh.
    """
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        places = np.linspace(
            0, leaf.size - 1, min(_DIGESTED, leaf.size), dtype=np.int64
        )
        values = jax.device_get(leaf[np.unravel_index(places, leaf.shape)])
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.shape}".encode())
        sha.update(np.ascontiguousarray(values).tobytes())
    return sha.hexdigest()[:16]
