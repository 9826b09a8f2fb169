"""Continuations of the best episode of a group: `config.expansion`."""

import dataclasses

from grpo_jax.sections import Section, at_least, fraction


@dataclasses.dataclass
class ExpansionConfig(Section):
    """Grounded expansion, as in David-GRPO: groups go on from the evidence they found.

    Needs episodes, and a task that knows which documents its questions need.
    """

    # Continuations of the best row of a group; the best of them takes the place of the
    # group's worst row if its reward is above all others. 0: none.
    continuations: int = 0
    # Groups whose best reward is below this are continued.
    below: float = 1.0
    # Least share of the gold documents that the best row must have been shown. 0: any;
    # where it was shown none, its continuations begin anew.
    min_coverage: float = 0.0
    # What a continuation shares with the row that it goes on from is not trained again.
    mask_prefix: bool = True

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, continuations=0)
        fraction(path, self, "min_coverage")
