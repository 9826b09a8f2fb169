"""Easy prompts mixed into every step, so that what is easy is not lost."""

import fractions
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt, PromptStream
from grpo_jax.data.tokenizer import Tokenizer


def is_easy(example: Example, most_hops: int) -> bool:
    """Returns whether a question is known to need at most `most_hops` documents."""
    return 0 < example.columns.get("hops", 0) <= most_hops


class MixedStream:
    """Endless batches of easy prompts and others; as `PromptStream` in all else.

    Easy prompts and others are two streams with an order each. Places belong to one or
    the other: of the first n places easy_fraction x n, rounded down, to the easy ones.
    Where a step has had all of one kind, the other fills its places.

    Attributes:
      dropped: examples left out because their prompt is too long.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        *,
        prompts_per_step: int,
        easy_fraction: float,
        easy_hops: int,
        **options: Any,
    ):
        """Splits the examples.

        Args:
          examples: with the column "hops".
          tokenizer: encodes prompts.
          prompts_per_step: prompts of a batch.
          easy_fraction: share of the prompts that are easy, above 0 and below 1.
          easy_hops: documents that an easy question needs at most.
          **options: of `PromptStream`.

        Raises:
          ValueError: no example has such a column, or there are too few of a kind.
        """
        share = fractions.Fraction(easy_fraction).limit_denominator(10**6)
        if not any("hops" in each.columns for each in examples):
            raise ValueError(
                f"config.rollout.easy_fraction is {easy_fraction} and no training "
                'question has a column "hops", which tells the easy ones: set it to 0, '
                "or use a task whose questions have one, such as multihop"
            )
        self._lanes: dict[bool, PromptStream] = {}
        for easy, part in ((True, share), (False, 1 - share)):
            kind = [each for each in examples if is_easy(each, easy_hops) == easy]
            wanted = math.ceil(part * prompts_per_step)
            if len(kind) < wanted:
                raise ValueError(
                    f"config.rollout.easy_fraction is {easy_fraction}, so that a step "
                    f"of {prompts_per_step} prompts takes {wanted} that are "
                    f"{'' if easy else 'not '}easy, and there are {len(kind)} (at most "
                    f"{easy_hops} hops are easy, config.rollout.easy_hops): change "
                    "one of them, or add such questions"
                )
            self._lanes[easy] = PromptStream(
                kind, tokenizer, prompts_per_step=wanted, **options
            )
        self._ids = {
            easy: {prompt.example.id for prompt in lane.prompts}
            for easy, lane in self._lanes.items()
        }
        self._rank = {each.id: rank for rank, each in enumerate(examples)}
        self._share, self._prompts_per_step = share, prompts_per_step
        self._position = 0  # prompts taken
        self.dropped = sum(lane.dropped for lane in self._lanes.values())

    @property
    def prompts(self) -> list[EncodedPrompt]:
        """What is drawn from, in the order of the examples."""
        prompts = [each for lane in self._lanes.values() for each in lane.prompts]
        return sorted(prompts, key=lambda prompt: self._rank[prompt.example.id])

    def set_tiers(self, tiers: Sequence[int]):
        """Gives every prompt a tier; the lowest tiers of each kind come first."""
        ids = [prompt.example.id for prompt in self.prompts]
        tier_of = dict(zip(ids, tiers, strict=True))
        for lane in self._lanes.values():
            lane.set_tiers([tier_of[each.example.id] for each in lane.prompts])

    def __iter__(self) -> Iterator[list[EncodedPrompt]]:
        return self

    def __next__(self) -> list[EncodedPrompt]:
        return self.take(self._prompts_per_step)

    def take(self, count: int, without: Iterable[int] = ()) -> list[EncodedPrompt]:
        """Returns the next prompts, each once; fewer where there are no others.

        Args:
          count: how many.
          without: ids of prompts that are passed over.
        """
        there, chosen = set(without), []
        while len(chosen) < count:
            easy = math.floor((self._position + 1) * self._share) > math.floor(
                self._position * self._share
            )
            found = self._next(easy, there) or self._next(not easy, there)
            if not found:
                break
            self._position += 1
            there.add(found[0].example.id)
            chosen += found
        return chosen

    def _next(self, easy: bool, there: set[int]) -> list[EncodedPrompt]:
        return self._lanes[easy].take(1, without=there & self._ids[easy])

    def get_state(self) -> dict[str, Any]:
        """Returns where the stream is; JSON can hold it."""
        return {
            "position": self._position,
            "easy": self._lanes[True].get_state(),
            "others": self._lanes[False].get_state(),
        }

    def set_state(self, state: Mapping[str, Any]):
        """Continues as the stream that returned `state` would have.

        Raises:
          ValueError: that stream had other prompts, another batch size or seed.
        """
        self._lanes[True].set_state(state["easy"])
        self._lanes[False].set_state(state["others"])
        self._position = state["position"]
