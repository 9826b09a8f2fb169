r"""Recorded trajectories through the engine: is what it remembers what was said?

    python -m benchmarks.replay --model=DIR --trajectories=rag.jsonl --count=50 \
        --temperature=0.05

Every trajectory becomes a row: what its expert wrote and what it was shown are given
token by token, the latter spliced in as a rollout does it. Behind every observation,
and at the end, the policy writes a few tokens of its own, which stay in the row. A
token is drawn from keys and values that were kept since the row began; its log-prob is
compared with that of one forward pass over the whole row, the trainer's. The tokens
that the model was shown are counted too: each given token once, if nothing was
computed again.

--model is a model directory, such as `python -m grpo_jax.random_model` writes one;
--trajectories is what config.task.experts_path takes.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import common
from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.examples import Segment
from grpo_jax.policy import transformer
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.tags import tag_set
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.setup import bucket
from grpo_jax.rollout.texts import Request
from grpo_jax.tasks import experts
from grpo_jax.tasks.expert_files import Trajectory, read_experts
from grpo_jax.trainer.model import ROLLOUT, Model, build_model
from grpo_jax.trainer.scorer import Scorer


def main() -> None:
    """Replays and writes the numbers."""
    flags = common.parser(__doc__)
    flags.add_argument("--model", type=pathlib.Path, required=True)
    flags.add_argument("--tokenizer", default="", help="default: that of the model")
    flags.add_argument("--trajectories", required=True)
    flags.add_argument("--count", type=int, default=50, help="of trajectories")
    flags.add_argument("--tags", type=choices.Tags, default=choices.Tags.SEARCH)
    flags.add_argument("--dtype", type=choices.Dtype, default=choices.Dtype.FLOAT32)
    flags.add_argument("--max_tokens", type=int, default=2048, help="of a trajectory")
    flags.add_argument("--max_rows", type=int, default=8, help="in the cache at once")
    # Random weights make all tokens about as likely, which would hide what is wrong.
    flags.add_argument("--temperature", type=float, default=1.0, help="random: 0.05")
    args = flags.parse_args()
    read = read_experts(args.trajectories, drop=True)
    model = open_model(
        str(args.model),
        args.tokenizer,
        dtype=args.dtype,
        max_tokens=args.max_tokens,
        max_rows=args.max_rows,
        temperature=args.temperature,
    )
    found = replay(model, read.kept, args.tags, args.count)
    facts = {"usable": len(read.kept), "left_out": read.reasons()}
    common.write(args.results, "replay", {**facts, **found})


def open_model(
    path: str,
    tokenizer: str,
    *,
    dtype: choices.Dtype,
    max_tokens: int,
    max_rows: int,
    temperature: float,
) -> Model:
    """Returns a model with room for trajectories of `max_tokens` tokens."""
    config = c.TrainConfig(
        policy=c.PolicyConfig(path=path, tokenizer=tokenizer, dtype=dtype),
        rollout=c.RolloutConfig(
            prompts_per_step=max_rows,
            group_size=2,
            max_prompt_tokens=256,
            max_completion_tokens=max_tokens,
            max_rows=max_rows,
            chunk_steps=4,
            sampling=c.SamplingConfig(temperature=temperature),
        ),
    )
    return build_model(config.seal())


def replay(
    model: Model,
    trajectories: Sequence[Trajectory],
    tags: choices.Tags,
    count: int,
    own_tokens: int = 4,
) -> dict[str, Any]:
    """Replays the first `count` trajectories that fit; returns what was compared.

    Args:
      model: with random or other weights.
      trajectories: without tags.
      tags: how they are written.
      count: how many are replayed.
      own_tokens: drawn behind every observation, and at the end.
    """
    pieces = [_encode(model, each, tags) for each in trajectories]
    longest = model.config.rollout.max_completion_tokens
    fitting = [each for each in pieces if _length(each[1:], own_tokens) <= longest][
        :count
    ]
    params = model.initial_params()
    with jax.set_mesh(model.mesh):
        session = Session(
            model.rollout_setup(),
            model.rollout_view(params),
            sampling=Sampling.of(model.config.rollout.sampling),
            key=model.key(ROLLOUT),
        )
        rows = _write(session, fitting, own_tokens)
        said = session.trajectories(rows)
        scores = _score(model, params, said)
    sampled = said.origins == Origin.SAMPLED
    gap = np.abs(said.behavior_log_probs - scores)[sampled]
    origins = {
        origin.name.lower(): int((said.origins == origin).sum())
        for origin in (Origin.PROMPT, Origin.EXPERT, Origin.OBSERVATION)
    }
    return {
        "trajectories": len(fitting),
        "splices": sum(observed for each in fitting for _, observed in each[1:]),
        "tokens": origins | {"sampled": int(sampled.sum())},
        "shown_to_the_model": session.stats.prefill_tokens,
        "log_prob_gap_max": float(gap.max()),
        "log_prob_gap_mean": float(gap.mean()),
        "log_prob_mean": float(said.behavior_log_probs[sampled].mean()),
    }


Pieces = list[tuple[list[int], bool]]


def _encode(model: Model, trajectory: Trajectory, tags: choices.Tags) -> Pieces:
    """Returns tokens and whether they are observed; the first are the prompt's."""
    encode = model.tokenizer.encode
    segments = experts.segments(tag_set(tags), trajectory.turns)
    prompt = Segment(f"{trajectory.question}\n", observed=False)
    return [(encode(each.text), each.observed) for each in (prompt, *segments)]


def _length(pieces: Pieces, own_tokens: int) -> int:
    return sum(len(tokens) + own_tokens for tokens, _ in pieces)


def _write(session: Session, texts: Sequence[Pieces], own_tokens: int) -> list[int]:
    """Writes rows of given pieces, and of the policy's own tokens between them."""
    requests = [
        Request(pieces[0][0], number, 0, pieces[1][0], Origin.EXPERT, expected_tokens=1)
        for number, pieces in enumerate(texts)
    ]
    rows = session.submit(requests)
    left = {row: list(pieces[2:]) for row, pieces in zip(rows, texts, strict=True)}
    for row in rows:
        _give(session, row, left[row], own_tokens)
    while session.active:
        for row in session.advance():
            if left[row]:
                # What has reached its limit is done; this lets it go on.
                session.truncate(row, int(session.texts.lengths[row]))
                _give(session, row, left[row], own_tokens)
                session.resume(row)
    return rows


def _give(session: Session, row: int, left: Pieces, own_tokens: int) -> None:
    """Adds pieces up to an observation, with room for a few tokens behind it."""
    texts, observed = session.texts, False
    while left and not observed:
        tokens, observed = left.pop(0)
        texts.limits[row] = texts.lengths[row] + len(tokens)
        origin = Origin.OBSERVATION if observed else Origin.EXPERT
        session.append(row, tokens, origin)
    texts.limits[row] = texts.lengths[row] + own_tokens


def _score(model: Model, params: Any, rows: Trajectories) -> np.ndarray:
    """Returns log-probs of every completion token, of few rows at a time."""
    config = model.config
    scorer = Scorer(
        arch=model.arch,
        mesh=model.mesh,
        dtype=config.policy.dtype,
        remat=config.policy.remat,
        attention=config.policy.attention,
        temperature=config.rollout.sampling.temperature,
        completion_columns=config.rollout.max_completion_tokens,
        chunk_tokens=config.trainer.logits_chunk_tokens,
    )
    score = jax.jit(scorer.log_probs)
    cast = transformer.cast(params, config.policy.dtype)
    scores = np.zeros(rows.tokens.shape, np.float32)
    numbers = np.arange(len(scores))
    for first in range(0, len(scores), scorer.row_shards):
        # One row a device; the last ones are repeated to make up the number.
        some = numbers[first:].take(np.arange(scorer.row_shards), mode="clip")
        width = bucket(int(rows.lengths[some].max()), rows.tokens.shape[1])
        found = score(cast, rows.tokens[some, :width], rows.prompt_lengths[some])
        scores[some, :width] = np.asarray(found[0])
    return scores


if __name__ == "__main__":
    main()
