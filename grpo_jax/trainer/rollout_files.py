"""What a step rolled out, row by row, in files of a workdir."""

import json
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.records import Trajectories
from grpo_jax.reporting.files import write_atomically
from grpo_jax.rewards.base import Completion, turns_to_row
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer.metrics import plain
from grpo_jax.trainer.spans import text_spans, token_spans
from grpo_jax.trainer.substitutes import Substitute

# A reference may be the tests of a program: megabytes, in every row of a group.
REFERENCE_CHARACTERS = 2000


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
      extra: further numbers of the same rows as `advantages`, by their names.
    """

    prompts: Sequence[EncodedPrompt]
    completions: Sequence[Completion]
    trajectories: Trajectories
    rewards: RewardTable
    advantages: Float[np.ndarray, " B"]
    tokenizer: Tokenizer
    substitutes: Sequence[Substitute] = ()
    extra: Mapping[str, Float[np.ndarray, " B"]] = types.MappingProxyType({})


def write_rollouts(workdir: pathlib.Path, step: int, batch: Batch) -> None:
    """Writes rollouts/STEP.jsonl, one object a completion, for the batch's prompts.

    Fewer prompts than were rolled out leave the completions of the others unwritten;
    none writes no file.
    """
    if lines := _rollout_lines(step, batch):
        write_atomically(workdir / "rollouts" / f"{step:06d}.jsonl", lines)


def write_tripped(workdir: pathlib.Path, name: str, step: int, batch: Batch) -> None:
    """Writes tripped/NAME, as `write_rollouts` does."""
    (workdir / "tripped").mkdir(exist_ok=True)
    write_atomically(workdir / "tripped" / name, _rollout_lines(step, batch))


def _rollout_lines(step: int, batch: Batch) -> str:
    """Returns the rows of each group, then what replaces some of them."""
    instead = {each.place: each for each in batch.substitutes}
    size = len(batch.completions) // max(batch.completions[-1].group + 1, 1)
    pieces, lines = _pieces(batch), []
    columns = {"advantage": batch.advantages, **batch.extra}
    for group, prompt in enumerate(batch.prompts):
        places = range(group * size, (group + 1) * size)
        for sample, place in enumerate(places):
            numbers = {name: plain(value[place]) for name, value in columns.items()}
            if place in instead:
                numbers = dict.fromkeys(numbers)
            line = _line(
                step,
                prompt,
                batch.completions[place],
                sample=sample,
                rewards=rewards_of_row(
                    batch.rewards.names, batch.rewards.values[place]
                ),
                total=float(batch.rewards.totals[place]),
                numbers=numbers,
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
                rewards=rewards_of_row(batch.rewards.names, each.values),
                total=each.total,
                numbers={name: plain(value[place]) for name, value in columns.items()},
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
    rewards: dict[str, Any],
    total: float,
    numbers: dict[str, Any],
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
        "reference": completion.reference[:REFERENCE_CHARACTERS],
        "rewards": rewards,
        "reward": plain(total),
        **numbers,
        "completion_tokens": completion.num_tokens,
        "finished": completion.finished,
        **origins,
        **_turns(completion),
    }


def rewards_of_row(
    names: Sequence[str], values: Float[np.ndarray, " rewards"]
) -> dict[str, Any]:
    """Returns the rewards of a row by name; None where one has no value."""
    return {name: plain(value) for name, value in zip(names, values, strict=True)}


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
