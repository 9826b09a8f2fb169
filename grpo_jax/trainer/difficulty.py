"""How hard the training problems are for the policy that a run starts from."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.policy import transformer
from grpo_jax.reporting import terminal
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.trainer import evaluation, logbook
from grpo_jax.trainer.run import Run

_FILE = "tiers.json"


def measure(
    run: Run,
    view: transformer.Params,
    prompts: Sequence[EncodedPrompt],
    workdir: pathlib.Path,
) -> list[int]:
    """Returns how many samples of each prompt are not right, and keeps it in WORKDIR.

    A sample that could not be graded counts as one that is not right.

    Args:
      run: what the configuration built; `config.rollout.tier_samples` are drawn.
      view: weights for decoding.
      prompts: of the training split.
      workdir: of the run; gets tiers.json.
    """
    config = run.config.rollout
    terminal.say(
        f"tiers: drawing {config.tier_samples} completions of each of {len(prompts)} "
        "training prompts"
    )
    graded = evaluation.grade(
        run, view, prompts, Sampling.of(config.sampling), config.tier_samples
    )
    right = (np.nan_to_num(graded.accuracy) > 0.5).sum(axis=1)
    tiers = (config.tier_samples - right).tolist()
    logbook.write_json(workdir / _FILE, {"not_right": tiers})
    counts = np.bincount(tiers, minlength=config.tier_samples + 1).tolist()
    terminal.say(f"tiers: prompts by samples that are not right, from 0: {counts}")
    return tiers


def read(workdir: pathlib.Path) -> list[int]:
    """Returns what `measure` found when this run began.

    Raises:
      FileNotFoundError: its file is gone.
    """
    path = workdir / _FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, in which this run keeps the order of its prompts: "
            "restore it, or start in a new workdir"
        )
    return json.loads(path.read_text())["not_right"]
