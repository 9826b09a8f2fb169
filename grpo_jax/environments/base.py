"""What an environment is: a tool that rows of a rollout ask, all that wait at once.

    class Clock:
        stops = ("</time>",)

        def reset(self, examples, histories): ...
        def read(self, turn):
            return Query("now", malformed=False)
        def step(self, rows, queries):
            return [Reply(f"<now>{time.ctime()}</now>") for _ in queries]
        def notice(self, notice):
            return Reply(f"<now>{notice.value}</now>")
        def describe(self):
            return {"clock": "of this machine"}
        def take_metrics(self):
            return {}
        def close(self): ...

named as `--config.episode.environment=module:function`, a function without arguments
that returns it. `rollout/episodes.py` does the rest: it stops rows, gives each its
reply, counts calls and keeps what must not be trained apart.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from grpo_jax.data.examples import Example
from grpo_jax.rewards.reading import Query


class Notice(enum.Enum):
    """What a row is told instead of a reply."""

    MALFORMED = "The query could not be read."
    LAST = "No call is left: answer now."


class Reply(NamedTuple):
    """What a row is shown.

    Attributes:
      text: as the policy reads it, tags and all.
      closing: the end of `text` that is kept where the rest must be cut.
      document_ids: of what it shows, best first.
      failed: the tool failed; the row ends here and gets no reward.
    """

    text: str
    closing: str = ""
    document_ids: tuple[str, ...] = ()
    failed: bool = False


@runtime_checkable
class Environment(Protocol):
    """A tool.

    Attributes:
      stops: strings that end a turn; the row waits behind them for its reply.
    """

    stops: tuple[str, ...]

    def reset(
        self, examples: Sequence[Example], histories: Sequence[Sequence[str]]
    ) -> None:
        """Begins episodes: row i of `step` works on `examples[i]`.

        `histories[i]` is what it has asked already: an episode can go on from the
        middle of another. They are empty where episodes begin anew.
        """
        ...

    def read(self, turn: str) -> Query:
        """Returns what a turn, written up to a stop, asks."""
        ...

    def step(self, rows: Sequence[int], queries: Sequence[str]) -> Sequence[Reply]:
        """Answers one query of each of some rows, in another thread than the rest.

        The same query of the same episode must have the same reply.
        """
        ...

    def notice(self, notice: Notice) -> Reply:
        """Returns how a row is told something."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Returns what replies depend on, for the records; JSON can hold it."""
        ...

    def take_metrics(self) -> Mapping[str, float]:
        """Returns counts since the last call, by the name of a metric."""
        ...

    def close(self) -> None:
        """Ends what it started."""
        ...
