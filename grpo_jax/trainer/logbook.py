"""The files of a workdir that are not metrics: configuration, rollouts, evaluations."""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from grpo_jax import choices, config_json
from grpo_jax.config import TrainConfig
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.records import Trajectories
from grpo_jax.reporting.files import write_atomically
from grpo_jax.rewards.base import Completion, turns_to_row
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer.breakdown import parts_of
from grpo_jax.trainer.evaluation import Graded
from grpo_jax.trainer.metrics import plain
from grpo_jax.trainer.spans import text_spans, token_spans
from grpo_jax.trainer.substitutes import Substitute

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
# A reference may be the tests of a program: megabytes, in every row of a group.
_REFERENCE_CHARACTERS = 2000


class Batch(NamedTuple):
    """What a step rolled out, as it is written down.

    Attributes:
      prompts: one a group.
      completions: one a row; those of a prompt are adjacent.
      trajectories: their tokens.
      rewards: what they got.
      advantages: of what is in the places of the rows in the update; NaN of places that
        were not trained on.
      tokenizer: of the tokens.
      substitutes: what replaces rows in the update.
    """

    prompts: Sequence[EncodedPrompt]
    completions: Sequence[Completion]
    trajectories: Trajectories
    rewards: RewardTable
    advantages: Float[np.ndarray, " B"]
    tokenizer: Tokenizer
    substitutes: Sequence[Substitute] = ()


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
        _write(workdir / "config.json", config_json.to_json(config))
    except OSError as error:
        raise OSError(
            error.errno,
            f"the run cannot be written ({error.strerror}); set --workdir to a "
            "directory that can be written and has space",
            str(workdir),
        ) from error


def write_rollouts(workdir: pathlib.Path, step: int, batch: Batch) -> None:
    """Writes rollouts/STEP.jsonl, one object a completion, for the batch's prompts.

    Fewer prompts than were rolled out leave the completions of the others unwritten;
    none writes no file.
    """
    if lines := _rollout_lines(step, batch):
        _write(workdir / "rollouts" / f"{step:06d}.jsonl", lines)


def write_tripped(workdir: pathlib.Path, name: str, step: int, batch: Batch) -> None:
    """Writes tripped/NAME, as `write_rollouts` does."""
    (workdir / "tripped").mkdir(exist_ok=True)
    _write(workdir / "tripped" / name, _rollout_lines(step, batch))


def _rollout_lines(step: int, batch: Batch) -> str:
    """Returns the rows of each group, then what replaces some of them."""
    instead = {each.place: each for each in batch.substitutes}
    size = len(batch.completions) // max(batch.completions[-1].group + 1, 1)
    pieces = _pieces(batch)
    lines = []
    for group, prompt in enumerate(batch.prompts):
        places = range(group * size, (group + 1) * size)
        for sample, place in enumerate(places):
            advantage = np.nan if place in instead else float(batch.advantages[place])
            line = _line(
                step,
                prompt,
                batch.completions[place],
                sample=sample,
                names=batch.rewards.names,
                values=batch.rewards.values[place],
                total=float(batch.rewards.totals[place]),
                advantage=advantage,
                origins=_origins(
                    batch.completions[place], batch.trajectories, place, pieces
                ),
            )
            lines.append(line)
        replaced = [place for place in places if place in instead]
        for sample, place in enumerate(replaced, start=size):
            each = instead[place]
            line = _line(
                step,
                prompt,
                each.completion,
                sample=sample,
                names=batch.rewards.names,
                values=each.values,
                total=each.total,
                advantage=float(batch.advantages[place]),
                origins=_origins(each.completion, each.trajectory, 0, pieces),
            )
            note = f"{each.note}, in place of sample {place % size}"
            lines.append(line | {"note": note})
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _line(
    step: int,
    prompt: EncodedPrompt,
    completion: Completion,
    *,
    sample: int,
    names: Sequence[str],
    values: Float[np.ndarray, " rewards"],
    total: float,
    advantage: float,
    origins: dict[str, Any],
) -> dict[str, Any]:
    """Returns what is written of one row."""
    return {
        "step": step,
        "group": completion.group,
        "sample": sample,
        "prompt_id": prompt.example.id,
        "tier": prompt.example.tier,
        "prompt": completion.prompt,
        "completion": completion.text,
        "reference": completion.reference[:_REFERENCE_CHARACTERS],
        "rewards": {
            name: plain(value) for name, value in zip(names, values, strict=True)
        },
        "reward": plain(total),
        "advantage": plain(advantage),
        "completion_tokens": completion.num_tokens,
        "finished": completion.finished,
        **origins,
        **_turns(completion),
    }


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
            "reference": completion.reference[:_REFERENCE_CHARACTERS],
            "accuracy": plain(accuracy),
            "rewards": _rewards(samples.rewards, row),
            "completion_tokens": completion.num_tokens,
            "sampled_tokens": completion.sampled_tokens,
            "finished": completion.finished,
            **turns_to_row(completion.turns),
        }
        if parts := parts_of(example.columns):
            line["parts"] = parts
        lines.append(json.dumps(line, ensure_ascii=False))
    path = workdir / "evaluation" / f"{result['name']}.json"
    # The usual temporary name is that of the journal, which may still be needed.
    write_atomically(path.with_suffix(".jsonl"), "\n".join(lines) + "\n")
    write_json(path, result)
    return path


def read_evaluation(workdir: pathlib.Path, name: str) -> dict[str, Any] | None:
    """Returns evaluation/NAME.json, None if there is none."""
    path = workdir / "evaluation" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    """Writes an object as indented JSON, whole or not at all; NaN becomes null."""
    _write(path, json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n")


def _rewards(table: RewardTable, row: int) -> dict[str, Any]:
    """Returns the rewards of a row by name; None where one has no value."""
    pairs = zip(table.names, table.values[row], strict=True)
    return {name: plain(value) for name, value in pairs}


def _pieces(batch: Batch) -> Sequence[bytes]:
    """Returns the bytes of the ids of a batch; none where no text is to be cut."""
    if not any(each.turns for each in batch.completions):
        return ()
    rows = [batch.trajectories, *(each.trajectory for each in batch.substitutes)]
    return batch.tokenizer.token_bytes(max(int(each.tokens.max()) for each in rows) + 1)


def _origins(
    completion: Completion,
    trajectories: Trajectories,
    row: int,
    pieces: Sequence[bytes],
) -> dict[str, Any]:
    """Returns who wrote what: spans of tokens, and of an episode's text as well."""
    written = slice(trajectories.prompt_lengths[row], trajectories.lengths[row])
    spans = token_spans(trajectories.origins[row, written])
    if not completion.turns:
        return {"spans": spans}
    cuts = text_spans(spans, trajectories.tokens[row, written], pieces)
    return {"spans": spans, "text_spans": cuts}


def _turns(completion: Completion) -> dict[str, Any]:
    """Returns an episode's turns and what it was to find; nothing of what is none."""
    if not completion.turns:
        return {}
    columns = completion.columns
    known = [name for name in ("evidence", "gold_titles") if columns.get(name)]
    return turns_to_row(completion.turns) | {name: columns[name] for name in known}


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


def _write(path: pathlib.Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
