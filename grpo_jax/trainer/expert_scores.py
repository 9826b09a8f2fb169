"""Log-probs of what experts wrote, under the model that is to stand for them."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.policy import sharding, transformer
from grpo_jax.records import Origin, TrainBatch
from grpo_jax.rewards.tags import system_prompt, tag_set
from grpo_jax.tasks import expert_files
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.experts import ExpertTurn, segments
from grpo_jax.tasks.load import load_task
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import expert_rows
from grpo_jax.trainer.expert_rows import ExpertRow
from grpo_jax.trainer.model import build_model
from grpo_jax.trainer.run import Run

# Rows that are scored, and held in memory, at one time.
_ROWS = 256


class Known(NamedTuple):
    """An expert to be scored."""

    prompt: EncodedPrompt
    turns: Sequence[ExpertTurn]
    row: ExpertRow


def score_experts(config: TrainConfig, model: str) -> tuple[list[dict[str, Any]], int]:
    """Returns the experts of a run with log-probs, as rows of `expert_files`.

    Their prompts, tags, tokens and the temperature are those of the run.

    Args:
      config: of the run, sealed; its weights are not read.
      model: directory or hub id of whoever is to have written the trajectories.

    Returns:
      The rows, and how many experts have none: the run would not use them, because
      their prompts or completions exceed its limits.

    Raises:
      FileNotFoundError: a path that does not exist.
      ValueError: a model of another tokenizer, or no expert to score.
    """
    with contextlib.closing(load_task(config.task, config.reward)) as task:
        _check_tokens(config, task, model)
        tokenizer = config.policy.tokenizer or config.policy.path
        policy = dataclasses.replace(config.policy, path=model, tokenizer=tokenizer)
        built = build_model(dataclasses.replace(config, policy=policy).seal())
        run = Run(built.config, built, task, rewards={})
        with jax.set_mesh(built.mesh):
            known, left_out = _experts(run)
            return list(_rows(run, known)), left_out


def _check_tokens(config: TrainConfig, task: Task, model: str) -> None:
    """Checks that a model reads the experts as the tokens of the run."""
    ours = load_tokenizer(config.policy.tokenizer or config.policy.path)
    theirs, tags = load_tokenizer(model), tag_set(config.task.tags)
    for example in task.train:
        if example.id not in task.experts:
            continue
        prompt = ours.render(
            example.question,
            system_prompt=system_prompt(config.task),
            template=config.task.prompt_template,
            use_chat_template=config.task.use_chat_template,
        )
        pieces = segments(tags, task.experts[example.id])
        texts = [prompt, *(piece.text for piece in pieces)]
        if ours.eos_ids[0] != theirs.eos_ids[0] or any(
            ours.encode(text) != theirs.encode(text) for text in texts
        ):
            raise ValueError(
                f"the tokenizer of --model, {model}, writes training question "
                f"{example.id}, {example.question!r:.100}, its expert or the end of a "
                f"completion in other tokens than that of the run, {ours.name}: "
                "log-probs of those are of no use to it; name a model with the "
                "tokenizer of the run"
            )


def _experts(run: Run) -> tuple[list[Known], int]:
    """Returns the experts that the run can use, and the number of the others."""
    config, tokenizer = run.config, run.model.tokenizer
    experts, tags = run.task.experts, tag_set(config.task.tags)
    found = []
    for prompt in run.model.encode(run.task.train):
        if turns := experts.get(prompt.example.id):
            pieces = expert_rows.encode(tokenizer, tags, turns)
            row = ExpertRow(pieces, ())
            if len(row.tokens) <= config.rollout.max_completion_tokens:
                found.append(Known(prompt, turns, row))
    if not found:
        raise ValueError(
            f"task {run.task.name!r} knows {len(experts)} experts, and none of them "
            "fits config.rollout.max_prompt_tokens and max_completion_tokens "
            f"({config.rollout.max_completion_tokens}): raise them, or set "
            "config.task.experts_path"
        )
    return found, len(experts) - len(found)


def _rows(run: Run, known: Sequence[Known]) -> Iterator[dict[str, Any]]:
    dtype, mesh = run.config.policy.dtype, run.model.mesh
    params = run.model.initial_params()
    if dtype is not choices.Dtype.FLOAT32:
        cast = jax.jit(
            lambda params: transformer.cast(params, dtype),
            out_shardings=sharding.param_shardings(mesh, run.model.abstract_params()),
        )
        params = cast(params)
    score = jax.jit(
        lambda *rows: run.scorer().log_probs(*rows)[0],
        out_shardings=sharding.row_sharding(mesh),
    )
    for first in range(0, len(known), _ROWS):
        some = known[first : first + _ROWS]
        batch = _batch(run, some)
        micros = run.micro_batches(
            batch,
            widest=batch.tokens.shape[1],
            budget_tokens=run.config.trainer.micro_batch_tokens,
        )
        scores = []
        for micro in micros:
            micro = sharding.put_rows(micro, mesh)
            scored = score(params, micro.tokens, micro.prompt_lengths)
            scores.append(jax.device_get(scored))
        values = batches.in_order(batch, scores)
        for each, row, origins in zip(some, values, batch.origins, strict=True):
            yield _row(each, row[origins == Origin.EXPERT])


def _batch(run: Run, known: Sequence[Known]) -> TrainBatch:
    columns = run.model.rollout_setup().columns
    rows = [expert_rows.trajectory(each.prompt, each.row, columns) for each in known]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    return TrainBatch(
        tokens=joined.tokens,
        origins=joined.origins,
        prompt_lengths=joined.prompt_lengths,
        advantages=np.zeros(len(rows), np.float32),
        loss_weights=np.zeros(joined.tokens.shape, np.float32),
        behavior_log_probs=joined.behavior_log_probs,
    )


def _row(known: Known, log_probs: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Returns an expert's row; `log_probs` are of all tokens that it wrote."""
    ends = np.cumsum([len(piece) for piece in known.row.pieces[::2]])
    # Rounding of float32 may leave a probability above 1.
    parts = np.split(np.minimum(log_probs, 0).astype(float).round(6), ends[:-1])
    turns = [
        dataclasses.replace(turn, log_probs=tuple(part.tolist()))
        for turn, part in zip(known.turns, parts, strict=True)
    ]
    example = known.prompt.example
    golds = example.columns.get("golds") or (example.reference,)
    return expert_files.row_of(example.question, golds, turns)
