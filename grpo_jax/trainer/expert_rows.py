"""What experts did, as tokens of a run: in its tags, with its tokenizer.

An expert's row alternates: what it wrote, what it was shown, what it wrote, ... With
`config.experts.replay` it is shown what the run's own environment replies.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.environments.base import Environment, Reply
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.base import Turn
from grpo_jax.rewards.tags import TagSet, tag_set
from grpo_jax.rollout import hosts
from grpo_jax.rollout.episodes import cut_reply
from grpo_jax.tasks import experts
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.experts import ExpertTurn


class ExpertRow(NamedTuple):
    """One expert's completion.

    Attributes:
      pieces: its tokens, alternately what the expert wrote in a turn and what it was
        shown; the last one ends with the end-of-sequence token.
      turns: their record, for the rewards.
      log_probs: of the tokens of every turn under the expert; () where not known.
    """

    pieces: list[list[int]]
    turns: tuple[Turn, ...]
    log_probs: tuple[Sequence[float], ...] = ()

    @property
    def tokens(self) -> list[int]:
        """The pieces, one after the other."""
        return [token for piece in self.pieces for token in piece]


class ExpertRows:
    """The rows of the experts that a task knows; each is made once, when asked for."""

    def __init__(
        self,
        config: TrainConfig,
        tokenizer: Tokenizer,
        task: Task,
        environment: Environment | None,
    ):
        """Starts without any.

        Args:
          config: sealed.
          tokenizer: of the policy.
          task: knows the experts.
          environment: replies to their queries if the configuration says so.
        """
        self._config, self._tokenizer, self._task = config, tokenizer, task
        self._environment = environment
        self._made: dict[int, ExpertRow] = {}

    def of(self, examples: Sequence[Example]) -> dict[int, ExpertRow]:
        """Returns the rows of examples by their ids.

        Left out are those whose queries the environment did not answer this time, or
        not within `config.episode.reply_tokens`.

        Args:
          examples: the task knows an expert of each.
        """
        new = [example for example in examples if example.id not in self._made]
        if self._environment and self._config.experts.replay and new:
            self._made |= self._replayed(self._environment, new)
        else:
            self._made |= {each.id: self._as_told(each) for each in new}
        wanted = (example.id for example in examples)
        return {id: self._made[id] for id in wanted if id in self._made}

    def _as_told(self, example: Example) -> ExpertRow:
        tags, turns = tag_set(self._config.task.tags), self._task.experts[example.id]
        log_probs = ()
        if self._config.experts.loss is choices.ExpertLoss.IMPORTANCE:
            log_probs = tuple(turn.log_probs for turn in turns)
        pieces = encode(self._tokenizer, tags, turns)
        return ExpertRow(pieces, experts.record(tags, turns), log_probs)

    def _replayed(
        self, environment: Environment, examples: Sequence[Example]
    ) -> dict[int, ExpertRow]:
        config, tags = self._config, tag_set(self._config.task.tags)
        most = config.episode.reply_tokens or config.rollout.max_completion_tokens
        known = [self._task.experts[example.id] for example in examples]
        answers = replay(environment, examples, known)
        made = {}
        for example, turns, replies in zip(examples, known, answers, strict=True):
            good = [reply for reply in replies if not reply.failed]
            cut = [cut_reply(self._tokenizer.encode, reply, most) for reply in good]
            shown = [tokens for tokens in cut if tokens is not None]
            if len(shown) < len(turns) - 1:
                continue
            pieces = encode(self._tokenizer, tags, turns)
            pieces[1::2] = shown
            found = [*(reply.document_ids for reply in good), ()]
            record = tuple(
                dataclasses.replace(turn, document_ids=ids)
                for turn, ids in zip(experts.record(tags, turns), found, strict=True)
            )
            made[example.id] = ExpertRow(pieces, record)
        return made


def encode(
    tokenizer: Tokenizer, tags: TagSet, turns: Sequence[ExpertTurn]
) -> list[list[int]]:
    """Returns the pieces of what an expert did, as `ExpertRow` has them."""
    pieces = [tokenizer.encode(each.text) for each in experts.segments(tags, turns)]
    pieces[-1].append(tokenizer.eos_ids[0])
    return pieces


def replay(
    environment: Environment,
    examples: Sequence[Example],
    known: Sequence[Sequence[ExpertTurn]],
) -> list[list[Reply]]:
    """Returns what an environment replies to the queries of experts.

    One that fails is the last reply of its expert.

    Args:
      environment: asked of all experts at once, query after query.
      examples: what each works on.
      known: what each did.
    """
    environment.reset(examples, [[] for _ in examples])
    queries = [[turn.query for turn in turns if turn.query] for turns in known]
    replies: list[list[Reply]] = [[] for _ in examples]
    while waiting := [
        row
        for row, got in enumerate(replies)
        if len(got) < len(queries[row]) and not (got and got[-1].failed)
    ]:
        asked = [queries[row][len(replies[row])] for row in waiting]
        step = functools.partial(environment.step, waiting, asked)
        answers = hosts.replies_of_first(step)
        for row, reply in zip(waiting, answers, strict=True):
            replies[row].append(reply)
    return replies


def trajectory(prompt: EncodedPrompt, row: ExpertRow, columns: int) -> Trajectories:
    """Returns the row of a prompt and its expert, B = 1.

    Args:
      prompt: the question.
      row: what the expert did.
      columns: of the result; what does not fit is cut, and the caller does not use it.
    """
    start, end = len(prompt.tokens), len(prompt.tokens) + len(row.tokens)
    origins, log_probs = [Origin.PROMPT] * start, [0.0] * start
    known = iter(row.log_probs)
    for number, piece in enumerate(row.pieces):
        written = number % 2 == 0
        origins += [Origin.EXPERT if written else Origin.OBSERVATION] * len(piece)
        unknown = [0.0] * len(piece)
        log_probs += next(known, unknown) if written else unknown
    wide = 1, columns
    said, codes = np.zeros(wide, np.int32), np.zeros(wide, np.uint8)
    behavior = np.zeros(wide, np.float32)
    said[0, :end] = [*prompt.tokens, *row.tokens][:columns]
    codes[0, :end] = origins[:columns]
    behavior[0, :end] = log_probs[:columns]
    return Trajectories(
        tokens=said,
        origins=codes,
        behavior_log_probs=behavior,
        kept_log_mass=np.zeros(wide, np.float32),
        prompt_lengths=np.array([start], np.int32),
        lengths=np.array([min(end, columns)], np.int32),
        finished=np.ones(1, bool),
    )


def check_log_probs(config: TrainConfig, tokenizer: Tokenizer, task: Task) -> None:
    """Checks that every expert has a log-prob for each token that it wrote.

    Args:
      config: sealed.
      tokenizer: of the policy.
      task: knows the experts.

    Raises:
      ValueError: one has none, or another number of them; says whose and what to do.
    """
    tags = tag_set(config.task.tags)
    questions = {example.id: example.question for example in task.train}
    for id, turns in task.experts.items():
        pieces = encode(tokenizer, tags, turns)[::2]
        for number, (turn, piece) in enumerate(zip(turns, pieces, strict=True)):
            if len(turn.log_probs) != len(piece):
                raise ValueError(
                    f"config.experts.loss is importance, and the expert of training "
                    f"question {id}, {questions[id]!r:.100}, has "
                    f"{len(turn.log_probs)} log_probs in turn {number} (from 0), which "
                    f"has {len(piece)} tokens with config.task.tags="
                    f"{config.task.tags.value} and the tokenizer {tokenizer.name}: "
                    "write the file of config.task.experts_path with python -m "
                    "grpo_jax.score_experts and this configuration, or use another "
                    "config.experts.loss"
                )
