"""An environment that tells what is asked and answered while it happens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Environment, Notice, Reply
from grpo_jax.rewards.reading import Query

# Of a reply, what is shown: the rest is there for the policy to read.
_LONGEST_LINE = 100
_MOST_LINES = 12


class Narrated:
    """Another environment, whose turns and replies are told one after another.

    For one row at a time: those of several would be told in between each other.

    Attributes:
      asked: turns of this episode that were told, which are those that asked.
    """

    def __init__(self, environment: Environment, tell: Callable[[str], None]):
        """Hands every turn that asks, and every reply in short, to `tell`."""
        self.stops = environment.stops
        self.asked = 0
        self._environment, self._tell = environment, tell

    def reset(
        self, examples: Sequence[Example], histories: Sequence[Sequence[str]]
    ) -> None:
        """Begins an episode."""
        self.asked = 0
        self._environment.reset(examples, histories)

    def read(self, turn: str) -> Query:
        """Tells a turn and returns what it asks."""
        self.asked += 1
        self._tell(turn)
        return self._environment.read(turn)

    def step(self, rows: Sequence[int], queries: Sequence[str]) -> list[Reply]:
        """Answers queries and tells the replies."""
        return [self._told(each) for each in self._environment.step(rows, queries)]

    def notice(self, notice: Notice) -> Reply:
        """Tells a notice."""
        return self._told(self._environment.notice(notice))

    def describe(self) -> Mapping[str, Any]:
        """Returns what replies depend on."""
        return self._environment.describe()

    def take_metrics(self) -> Mapping[str, float]:
        """Returns counts since the last call."""
        return self._environment.take_metrics()

    def close(self) -> None:
        """Ends what the environment started."""
        self._environment.close()

    def _told(self, reply: Reply) -> Reply:
        self._tell(f"failed: {reply.text}" if reply.failed else shorten(reply.text))
        return reply


def shorten(text: str) -> str:
    """Returns the first lines of a text, of each the beginning; empty ones left out."""
    lines = [line for line in text.splitlines() if line.strip()]
    shown = [
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."
        for line in lines[:_MOST_LINES]
    ]
    return "\n".join([*shown, "..."] if len(lines) > _MOST_LINES else shown)
