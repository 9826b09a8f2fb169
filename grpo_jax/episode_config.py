"""Completions that ask an environment while they are written: `config.episode`."""

import dataclasses

from grpo_jax.sections import Section, at_least


@dataclasses.dataclass
class EpisodeConfig(Section):
    """An episode is a completion with replies of an environment in it."""

    # "search" (config.retrieval), "calculator" or "package.module:function". "": none.
    environment: str = ""
    # Most replies of an episode; who asks once more is told so, and may answer.
    max_calls: int = 4
    # Most tokens that the policy writes in one turn. 0: what is left.
    turn_tokens: int = 0
    # Most tokens of a reply; it is cut before its closing tag. 0: what is left.
    reply_tokens: int = 0
    # Tokens that every reply leaves for the turn after it. An episode without room for
    # them ends before the reply.
    answer_tokens: int = 16

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, max_calls=0, turn_tokens=0, reply_tokens=0)
        at_least(path, self, answer_tokens=1)

    def check_room(self, path: str, name: str, tokens: int):
        """Checks that a completion has room for more than an answer.

        Args:
          path: of this section.
          name: of a limit of completions.
          tokens: its value; 0 where there is none.

        Raises:
          ValueError: it has not.
        """
        if self.environment and 0 < tokens <= self.answer_tokens:
            raise ValueError(
                f"{path}.answer_tokens is {self.answer_tokens} and {name} {tokens}: "
                "replies have no room; lower the first or raise the second"
            )
