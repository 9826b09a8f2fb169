"""Episodes: rows ask an environment, are shown its replies, and go on.

    row 0   prompt  "<search>a</search>"  [<information>...]  "<answer>b</answer>"
    origin  PROMPT   SAMPLED               OBSERVATION          SAMPLED

A row stops behind the tag that ends a query. What it asks is read from the bytes of
the tokens it wrote; the reply is encoded once and spliced in. Nothing is decoded and
encoded again, so that what is trained on is what was sampled.

Queries of one chunk are answered together, in another thread while the next chunk of
the other rows is decoded, and always spliced in behind that chunk: how fast the tool is
changes no number.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from grpo_jax.config import EpisodeConfig
from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Environment, Notice, Reply
from grpo_jax.rewards.base import Turn
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.texts import Request, Status


class Speech(NamedTuple):
    """How texts become tokens, and what tokens say.

    Attributes:
      encode: ids of a text.
      pieces: the bytes that each id adds to a text.
    """

    encode: Callable[[str], list[int]]
    pieces: Sequence[bytes]


@dataclasses.dataclass
class _Episode:
    """One row on its way.

    Attributes:
      row: of the session.
      limit: of its length.
      start: of the turn that is being written.
      turns: so far.
      calls: replies and notices that counted so far.
      last: the turn that is being written may ask nothing more.
    """

    row: int
    limit: int
    start: int
    turns: list[Turn] = dataclasses.field(default_factory=list)
    calls: int = 0
    last: bool = False


class _Asked(NamedTuple):
    """Queries that wait for their replies."""

    episodes: list[_Episode]
    replies: concurrent.futures.Future[Sequence[Reply]]


def converse(
    session: Session,
    requests: Sequence[Request],
    examples: Sequence[Example],
    environment: Environment,
    speech: Speech,
    config: EpisodeConfig,
) -> tuple[list[int], list[tuple[Turn, ...]]]:
    """Writes an episode for every request; returns their rows and their turns.

    Args:
      session: stops at the stops of the environment.
      requests: what to complete.
      examples: of the requests, for the environment.
      environment: answers.
      speech: the tokenizer's.
      config: limits.

    Raises:
      ConnectionError: the environment failed for every query, and there were some.
    """
    environment.reset(examples)
    rows = session.submit(requests)
    episodes = {row: _begin(session, row) for row in rows}
    numbers = {row: number for number, row in enumerate(rows)}
    for episode in episodes.values():
        _bound_turn(session, episode, config)
    talk = _Talk(session, environment, speech, config)
    asked: _Asked | None = None
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        while session.active or asked:
            stopped = session.advance() if session.active else []
            if asked:
                talk.answer(asked)
            ended = [episodes[row] for row in stopped]
            calls = [each for each in ended if talk.end_turn(each)]
            asked = None
            if calls:
                places = [numbers[each.row] for each in calls]
                queries = [each.turns[-1].query for each in calls]
                replies = thread.submit(environment.step, places, queries)
                asked = _Asked(calls, replies)
    talk.check()
    return rows, [tuple(episodes[row].turns) for row in rows]


def _begin(session: Session, row: int) -> _Episode:
    texts = session.texts
    return _Episode(row, int(texts.limits[row]), int(texts.prompt_lengths[row]))


def _bound_turn(session: Session, episode: _Episode, config: EpisodeConfig) -> None:
    """Limits the turn that begins."""
    length = int(session.texts.lengths[episode.row])
    most = length + config.turn_tokens if config.turn_tokens else episode.limit
    session.texts.limits[episode.row] = min(most, episode.limit)


class _Talk:
    """What is said between rows and the environment."""

    def __init__(
        self,
        session: Session,
        environment: Environment,
        speech: Speech,
        config: EpisodeConfig,
    ):
        self._session, self._environment = session, environment
        self._speech = speech
        self._config = config
        self._calls, self._failures, self._reason = 0, 0, ""

    def end_turn(self, episode: _Episode) -> bool:
        """Records a turn; returns whether it asks something that is to be answered.

        A row that asks although it must not is finished, one whose query cannot be read
        or that has no call left is told so.
        """
        texts = self._session.texts
        said = texts.tokens[episode.row, episode.start : texts.lengths[episode.row]]
        pieces = (self._speech.pieces[token] for token in said.tolist())
        text = b"".join(pieces).decode(errors="replace")
        if texts.status[episode.row] == Status.DONE:
            episode.turns.append(Turn(text))
            return False
        query, malformed = self._environment.read(text)
        no_calls_left = episode.calls >= self._config.max_calls
        if episode.last or no_calls_left or malformed:
            # What is not answered was not asked, as far as records go.
            episode.turns.append(Turn(text, malformed=malformed))
            if episode.last:
                self._session.finish(episode.row)
                return False
            episode.last = no_calls_left
            episode.calls += 1
            notice = Notice.LAST if no_calls_left else Notice.MALFORMED
            self._splice(episode, self._environment.notice(notice))
            return False
        episode.turns.append(Turn(text, query))
        return True

    def answer(self, asked: _Asked) -> None:
        """Shows rows what they asked for; waits for it if it is not there yet."""
        for episode, reply in zip(asked.episodes, asked.replies.result(), strict=True):
            self._calls += 1
            episode.calls += 1
            turn = episode.turns[-1]
            if reply.failed:
                self._failures, self._reason = self._failures + 1, reply.text
                episode.turns[-1] = dataclasses.replace(turn, failed=True)
                self._session.finish(episode.row)
                continue
            if self._splice(episode, reply):
                episode.turns[-1] = dataclasses.replace(
                    turn, document_ids=reply.document_ids
                )

    def check(self) -> None:
        """Raises a ConnectionError where nothing that was asked was answered."""
        if self._calls and self._failures == self._calls:
            raise ConnectionError(
                f"the environment failed for all {self._calls} queries of a rollout, "
                f"the last time: {self._reason}"
            )

    def _splice(self, episode: _Episode, reply: Reply) -> bool:
        """Shows a row a reply and lets it go on; returns False where it has no room."""
        session, row = self._session, episode.row
        config = self._config
        room = episode.limit - int(session.texts.lengths[row]) - config.answer_tokens
        tokens = self._speech.encode(reply.text)
        closing = self._speech.encode(reply.closing) if reply.closing else []
        most = min(config.reply_tokens or len(tokens), room)
        if len(tokens) > most:
            if most <= len(closing):
                session.finish(row, complete=False)
                return False
            tokens = tokens[: most - len(closing)] + closing
        session.texts.limits[row] = episode.limit
        session.append(row, tokens)
        episode.start = int(session.texts.lengths[row])
        _bound_turn(session, episode, config)
        session.resume(row)
        return True


def metrics(episodes: Sequence[Sequence[Turn]]) -> dict[str, float]:
    """Returns what episodes did: calls, and how many were of no use.

    Args:
      episodes: the turns of each.
    """
    asked = [[turn for turn in turns if turn.query] for turns in episodes]
    calls = sum(map(len, asked))
    malformed = sum(turn.malformed for turns in episodes for turn in turns)
    shown = new = repeated = 0
    for turns in asked:
        known: set[str] = set()
        queries: set[str] = set()
        for turn in turns:
            plain = " ".join(turn.query.lower().split())
            repeated += plain in queries
            queries.add(plain)
            shown += len(turn.document_ids)
            new += len(set(turn.document_ids) - known)
            known.update(turn.document_ids)
    failed = [any(turn.failed for turn in turns) for turns in episodes]
    return {
        "episode/calls_mean": calls / len(episodes),
        "episode/calls_max": float(max(map(len, asked))),
        "episode/no_call_fraction": float(np.mean([not turns for turns in asked])),
        "episode/malformed_fraction": malformed / max(calls + malformed, 1),
        "episode/repeated_query_fraction": repeated / max(calls, 1),
        "episode/new_document_fraction": new / max(shown, 1),
        "episode/failed_fraction": float(np.mean(failed)),
    }
