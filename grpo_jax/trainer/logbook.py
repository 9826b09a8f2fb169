"""Files of a workdir: its configuration, and evaluations."""

import json
import pathlib
import re
from typing import Any

from grpo_jax import choices, config_json
from grpo_jax.config import TrainConfig
from grpo_jax.reporting.files import write_atomically
from grpo_jax.rewards.base import turns_to_row
from grpo_jax.trainer.breakdown import parts_of
from grpo_jax.trainer.evaluation import Graded
from grpo_jax.trainer.metrics import plain
from grpo_jax.trainer.rollout_files import REFERENCE_CHARACTERS, rewards_of_row

# Fields that leave a run's numbers as they are, or change only what is looked at: a run
# that has begun may be continued with others. Micro-batches, the mesh and attention
# regroup sums, so the last bits may differ from then on.
_FREE_TO_CHANGE = (
    "config.checkpoint.",
    "config.evaluation.every_steps",
    "config.evaluation.patience",
    "config.mesh.",
    "config.monitor.",
    "config.policy.attention",
    "config.policy.remat",
    "config.reward.batch_seconds",
    "config.reward.check_",
    "config.reward.workers",
    "config.rollout.chunk_steps",
    "config.rollout.max_rows",
    "config.trainer.logged_groups",
    "config.trainer.logits_chunk_tokens",
    "config.trainer.max_generated_tokens",
    "config.trainer.max_nonfinite_updates",
    "config.trainer.micro_batch_tokens",
    "config.warm_start.micro_batch_tokens",
)


def check_workdir(workdir: pathlib.Path, config: TrainConfig) -> None:
    """Checks that a directory can take this run, writing nothing.

    Raises:
      ValueError: it holds a run of another configuration, or is not local.
    """
    if "://" in str(workdir) or re.match(r"[a-z0-9]{2,}:/", str(workdir)):
        raise ValueError(f"--workdir is {workdir}: use a directory of this machine")
    path = workdir / "config.json"
    if path.exists():
        old = json.loads(path.read_text())
        _check_same(path, old, json.loads(config_json.to_json(config)))


def open_workdir(workdir: pathlib.Path, config: TrainConfig) -> None:
    """Makes the directory and writes the configuration into it.

    Raises:
      OSError: it cannot be written.
      ValueError: it holds a run of another configuration.
    """
    check_workdir(workdir, config)
    try:
        for name in ("rollouts", "evaluation"):
            (workdir / name).mkdir(parents=True, exist_ok=True)
        write_atomically(workdir / "config.json", config_json.to_json(config))
    except OSError as error:
        raise OSError(
            error.errno,
            f"the run cannot be written ({error.strerror}); set --workdir to a "
            "directory that can be written and has space",
            str(workdir),
        ) from error


def write_evaluation(
    workdir: pathlib.Path, result: dict[str, Any], samples: Graded
) -> pathlib.Path:
    """Writes evaluation/NAME.json, and NAME.jsonl with every sampled completion."""
    lines = []
    for row, (completion, accuracy) in enumerate(
        zip(samples.completions, samples.accuracy.ravel(), strict=True)
    ):
        example = samples.prompts[completion.group].example
        line = {
            "problem": example.id,
            "sample": row % samples.accuracy.shape[1],
            "question": example.question,
            "prompt": completion.prompt,
            "completion": completion.text,
            "reference": completion.reference[:REFERENCE_CHARACTERS],
            "accuracy": plain(accuracy),
            "rewards": rewards_of_row(
                samples.rewards.names, samples.rewards.values[row]
            ),
            "completion_tokens": completion.num_tokens,
            "sampled_tokens": completion.sampled_tokens,
            "finished": completion.finished,
            **turns_to_row(completion.turns),
        }
        if parts := parts_of(example.columns):
            line["parts"] = parts
        lines.append(json.dumps(line, ensure_ascii=False))
    path = workdir / "evaluation" / f"{result['name']}.json"
    write_atomically(path.with_suffix(".jsonl"), "\n".join(lines) + "\n")
    write_json(path, result)
    return path


def read_evaluation(workdir: pathlib.Path, name: str) -> dict[str, Any] | None:
    """Returns evaluation/NAME.json, None if there is none."""
    path = workdir / "evaluation" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes an object as indented JSON, whole or not at all; NaN becomes null."""
    write_atomically(
        path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n"
    )


# Guidance lengths that reach their end with the run.
_SCHEDULED = {
    kind.value
    for kind in (
        choices.GuidanceLength.LINEAR,
        choices.GuidanceLength.CONCAVE,
        choices.GuidanceLength.COSINE,
    )
}


def _depends_on_steps(config: dict[str, Any]) -> bool:
    """Whether numbers of a run depend on how many steps it will have."""
    guidance = config["guidance"]
    moves = guidance["anneal_fraction"] or guidance["length"] in _SCHEDULED
    constant = config["optimizer"]["schedule"] == choices.Schedule.CONSTANT.value
    return not constant or bool(guidance["fraction"] and moves)


def _check_same(path: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuses to continue a run under a configuration that would change its numbers."""
    free = _FREE_TO_CHANGE
    if not _depends_on_steps(new):
        free += ("config.trainer.steps",)
    changed = _differences(old, new, "config")
    changed = [change for change in changed if not change.startswith(free)]
    if changed:
        raise ValueError(
            f"{path} is of a run with another configuration: "
            + "; ".join(changed)
            + ". Use the same configuration to resume, or another --workdir"
        )


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        parts = [_differences(old.get(n), new.get(n), f"{path}.{n}") for n in names]
        return [change for part in parts for change in part]
    return [] if old == new else [f"{path} was {old!r} and is {new!r}"]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return plain(value)
