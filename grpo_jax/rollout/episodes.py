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

from grpo_jax.config import EpisodeConfig
from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Environment, Notice, Reply
from grpo_jax.records import Origin
from grpo_jax.rewards.base import Turn
from grpo_jax.rollout import hosts
from grpo_jax.rollout.probing import Probing, probe
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.texts import Request, Status

# Failures without any answer, from which on the environment must be down.
_FEWEST = 4


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
      request: what it completes.
      example: what it works on.
      limit: of its length.
      start: of the turn that is being written.
      copied: tokens that it took over from another row, prompt included.
      turns: so far.
      ends: length of the row behind each reply or notice; the i-th follows turn i.
      last: the turn that is being written may ask nothing more.
    """

    row: int
    request: Request
    example: Example
    limit: int
    start: int
    copied: int = 0
    turns: list[Turn] = dataclasses.field(default_factory=list)
    ends: list[int] = dataclasses.field(default_factory=list)
    last: bool = False


class _Asked(NamedTuple):
    """Queries that wait for their replies; `wait` is called where they were asked."""

    episodes: list[_Episode]
    wait: Callable[[], Sequence[Reply]]


class Conversation:
    """Rows of a session, and the environment that answers them.

    rows = conversation.begin(requests, examples)
    conversation.run()
    conversation.turns(rows[0])
    again = conversation.branch(rows[0], 1, sample=8)    behind its first reply
    conversation.run()
    """

    def __init__(
        self,
        session: Session,
        environment: Environment,
        speech: Speech,
        config: EpisodeConfig,
        probing: Probing | None = None,
    ):
        """Starts without rows.

        Args:
          session: stops at the stops of the environment.
          environment: answers.
          speech: the tokenizer's.
          config: limits.
          probing: rows are asked after every reply what they would answer, and answer
            for good if they are sure enough. None: they are not.
        """
        self._session, self._environment = session, environment
        self._speech, self._config, self._probing = speech, config, probing
        self._episodes: dict[int, _Episode] = {}
        self._new: list[_Episode] = []  # that `run` has not seen
        self._calls, self._failures, self._reason = 0, 0, ""

    def begin(
        self, requests: Sequence[Request], examples: Sequence[Example]
    ) -> list[int]:
        """Queues an episode for every request; returns their rows.

        Args:
          requests: what to complete.
          examples: of the requests, for the environment.
        """
        rows = self._session.submit(requests)
        texts = self._session.texts
        for row, request, example in zip(rows, requests, examples, strict=True):
            limit, start = int(texts.limits[row]), int(texts.prompt_lengths[row])
            self._add(_Episode(row, request, example, limit, start))
        return rows

    def branch(self, row: int, replies: int, *, sample: int) -> int:
        """Queues another row that goes on behind one of a row's replies.

        Args:
          row: an episode that has ended.
          replies: that it keeps, with the turns before them; 0 begins anew. They count
            as calls.
          sample: index of the new row among the completions of its prompt.
        """
        parent, texts = self._episodes[row], self._session.texts
        start = int(texts.prompt_lengths[row])
        if replies:
            start = parent.ends[replies - 1]
        texts.limits[row] = parent.limit  # else that of its last turn
        new = self._session.clone(
            row, start, prompt_id=parent.request.prompt_id, sample=sample
        )
        self._add(
            dataclasses.replace(
                parent,
                row=new,
                start=start,
                copied=start,
                turns=parent.turns[:replies],
                ends=parent.ends[:replies],
                last=False,
            )
        )
        return new

    def copied(self, row: int) -> int:
        """Returns how many tokens a branch took over; 0 of a row that began anew."""
        return self._episodes[row].copied

    def turns(self, row: int) -> tuple[Turn, ...]:
        """Returns what a row wrote and asked so far."""
        return tuple(self._episodes[row].turns)

    def run(self) -> None:
        """Lets rows write until none of them lives or waits.

        Raises:
          ConnectionError: the environment failed for every query so far, and for so
            many that it is not their fault.
        """
        new, self._new = self._new, []
        numbers = {each.row: number for number, each in enumerate(new)}
        self._environment.reset(
            [each.example for each in new],
            [[turn.query for turn in each.turns if turn.query] for each in new],
        )
        asked: _Asked | None = None
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            while self._session.active or asked:
                stopped = self._session.advance() if self._session.active else []
                if asked:
                    self._answer(asked)
                ended = [self._episodes[row] for row in stopped]
                calls = [each for each in ended if self._end_turn(each)]
                asked = None
                if calls:
                    places = [numbers[each.row] for each in calls]
                    queries = [each.turns[-1].query for each in calls]
                    asked = _Asked(calls, self._ask(thread, places, queries))
        if self._failures == self._calls >= _FEWEST:
            raise ConnectionError(
                f"the environment failed for all {self._calls} queries of a rollout, "
                f"the last time: {self._reason}"
            )

    def _ask(
        self,
        thread: concurrent.futures.Executor,
        places: Sequence[int],
        queries: Sequence[str],
    ) -> Callable[[], Sequence[Reply]]:
        """Begins to ask; returns what waits for the replies."""
        if not hosts.is_first():
            return lambda: []  # it is told what the first process was
        return thread.submit(self._environment.step, places, queries).result

    def _add(self, episode: _Episode) -> None:
        self._episodes[episode.row] = episode
        self._new.append(episode)
        self._bound_turn(episode)

    def _bound_turn(self, episode: _Episode) -> None:
        """Limits the turn that begins."""
        texts, most = self._session.texts, episode.limit
        if self._config.turn_tokens:
            length = int(texts.lengths[episode.row])
            most = min(most, length + self._config.turn_tokens)
        texts.limits[episode.row] = most

    def _end_turn(self, episode: _Episode) -> bool:
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
        no_calls_left = len(episode.ends) >= self._config.max_calls
        if episode.last or no_calls_left or malformed:
            # What is not answered was not asked, as far as records go.
            episode.turns.append(Turn(text, malformed=malformed))
            if episode.last:
                self._session.finish(episode.row)
                return False
            episode.last = no_calls_left
            notice = Notice.LAST if no_calls_left else Notice.MALFORMED
            if self._splice(episode, self._environment.notice(notice)):
                self._session.resume(episode.row)
            return False
        episode.turns.append(Turn(text, query))
        return True

    def _answer(self, asked: _Asked) -> None:
        """Shows rows what they asked for; waits for it if it is not there yet."""
        replies, shown = hosts.replies_of_first(asked.wait), []
        for episode, reply in zip(asked.episodes, replies, strict=True):
            self._calls += 1
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
                shown.append(episode)
        if self._probing and shown:
            self._probe(shown, self._probing)
        for episode in shown:
            self._session.resume(episode.row)

    def _probe(self, shown: Sequence[_Episode], probing: Probing) -> None:
        """Asks rows that were shown a reply what they would answer."""
        rows = [episode.row for episode in shown]
        found = probe(self._session, rows, probing, self._speech.pieces)
        for episode, each in zip(shown, found, strict=True):
            episode.turns[-1] = dataclasses.replace(episode.turns[-1], probe=each)
            if probing.ends(each):
                episode.last = True
                self._session.append(episode.row, probing.opening, Origin.FORCED)

    def _splice(self, episode: _Episode, reply: Reply) -> bool:
        """Shows a row a reply; returns False where it has no room, and is finished."""
        session, row = self._session, episode.row
        config = self._config
        room = episode.limit - int(session.texts.lengths[row]) - config.answer_tokens
        most = min(config.reply_tokens or room, room)
        tokens = cut_reply(self._speech.encode, reply, most)
        if tokens is None:
            session.finish(row, complete=False)
            return False
        session.texts.limits[row] = episode.limit
        session.append(row, tokens)
        episode.start = int(session.texts.lengths[row])
        episode.ends.append(episode.start)
        self._bound_turn(episode)
        return True


def cut_reply(
    encode: Callable[[str], list[int]], reply: Reply, most: int
) -> list[int] | None:
    """Returns the tokens of a reply, where they are too many cut before its closing.

    Args:
      encode: the tokenizer's.
      reply: to be shown.
      most: tokens of it; None is returned where they hold its closing alone.
    """
    tokens = encode(reply.text)
    if len(tokens) <= most:
        return tokens
    closing = encode(reply.closing) if reply.closing else []
    return tokens[: most - len(closing)] + closing if most > len(closing) else None
