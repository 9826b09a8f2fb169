"""Endless, resumable batches: prompts for rollouts, demonstrations for warm starts."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Int32

from grpo_jax import choices
from grpo_jax.data.examples import Demonstration, Example, Segment
from grpo_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class EncodedPrompt:
    """An example's prompt, as text and as token ids."""

    example: Example
    text: str
    tokens: list[int]


@dataclasses.dataclass(frozen=True)
class DemonstrationBatch:
    """B rows of a prompt, its completion and an end token, right padded.

    Attributes:
      tokens: token ids; pad ids past `lengths`.
      prompt_lengths: tokens of the prompt.
      lengths: tokens of the prompt, the completion and the end token together.
      learned: False for the prompt, observations and padding.
    """

    tokens: Int32[np.ndarray, "B T"]
    prompt_lengths: Int32[np.ndarray, " B"]
    lengths: Int32[np.ndarray, " B"]
    learned: Bool[np.ndarray, "B T"]


def encode_prompts(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    max_prompt_tokens: int,
    overlong: choices.Overlong = choices.Overlong.DROP,
    system_prompt: str = "",
    template: str = "{question}",
    use_chat_template: bool = False,
) -> list[EncodedPrompt]:
    """Returns the prompts of at most `max_prompt_tokens` tokens, in order.

    Raises:
      ValueError: a prompt is longer and `overlong` is ERROR, or is empty.
    """
    prompts = []
    for example in examples:
        text = tokenizer.render(
            example.question,
            system_prompt=system_prompt,
            template=template,
            use_chat_template=use_chat_template,
        )
        tokens = tokenizer.encode(text)
        if not tokens:
            raise ValueError(
                f"the prompt of row {example.id} has no token: its question is "
                f"{example.question!r}; remove the row from the dataset"
            )
        if len(tokens) <= max_prompt_tokens:
            prompts.append(EncodedPrompt(example, text, tokens))
        elif overlong is choices.Overlong.ERROR:
            raise ValueError(
                f"the prompt of row {example.id} has {len(tokens)} tokens and "
                f"config.rollout.max_prompt_tokens is {max_prompt_tokens}: raise it, "
                f"or set config.task.overlong=drop; the row is {text[:200]!r}"
            )
    return prompts


class PromptStream:
    """Endless batches of prompts, in a new permutation each epoch or in one order.

    A prompt appears at most once in a step, because sampling noise depends on its id:
    a second group of it would repeat the first. So a batch of a permutation lies within
    one epoch, and the `len(prompts) % prompts_per_step` prompts at its end wait for the
    next one. By tiers or as in the file, which is the same order again, it may reach
    over the end.
    What a step takes besides its batch moves the following batches on.

    Attributes:
      prompts: what is drawn from, in the order of the examples.
      dropped: examples left out because their prompt is too long.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        *,
        prompts_per_step: int,
        seed: int,
        max_prompt_tokens: int,
        order: choices.Order = choices.Order.SHUFFLED,
        overlong: choices.Overlong = choices.Overlong.DROP,
        system_prompt: str = "",
        template: str = "{question}",
        use_chat_template: bool = False,
    ):
        self.prompts = encode_prompts(
            examples,
            tokenizer,
            max_prompt_tokens=max_prompt_tokens,
            overlong=overlong,
            system_prompt=system_prompt,
            template=template,
            use_chat_template=use_chat_template,
        )
        self.dropped = len(examples) - len(self.prompts)
        if len(self.prompts) < prompts_per_step:
            raise ValueError(
                f"config.rollout.prompts_per_step is {prompts_per_step} and only "
                f"{len(self.prompts)} of {len(examples)} training prompts are left: "
                f"{self.dropped} have more tokens than "
                f"config.rollout.max_prompt_tokens, which is {max_prompt_tokens}; "
                "raise it, lower prompts_per_step or add examples"
            )
        self._identity = {
            "prompts": len(self.prompts),
            "prompts_per_step": prompts_per_step,
            "seed": seed,
            "order": order.value,
        }
        if order is choices.Order.SHUFFLED:
            self._batches: Any = (
                grain.MapDataset.source(range(len(self.prompts)))
                .seed(seed)
                .shuffle()
                .batch(prompts_per_step, drop_remainder=True, batch_fn=list)
                .repeat()
            )
        elif order is choices.Order.FILE:
            self._batches = self._in_order(range(len(self.prompts)))
        else:
            self._batches = self._by_tier()
        self._position = 0  # prompts taken or passed over
        self._open: tuple[int, list[int]] = (-1, [])  # the batch looked at last

    def set_tiers(self, tiers: Sequence[int]):
        """Gives every prompt a tier; from now on the lowest tiers come first."""
        self.prompts = [
            dataclasses.replace(
                prompt, example=dataclasses.replace(prompt.example, tier=tier)
            )
            for prompt, tier in zip(self.prompts, tiers, strict=True)
        ]
        self._batches, self._open = self._by_tier(), (-1, [])

    def _by_tier(self) -> Any:
        tiers = [prompt.example.tier for prompt in self.prompts]
        return self._in_order(np.argsort(tiers, kind="stable").tolist())

    def _in_order(self, indices: Sequence[int]) -> Any:
        return (
            grain.MapDataset.source(indices)
            .repeat()
            .batch(self._identity["prompts_per_step"], batch_fn=list)
        )

    def __iter__(self) -> Iterator[list[EncodedPrompt]]:
        return self

    def __next__(self) -> list[EncodedPrompt]:
        return self.take(self._identity["prompts_per_step"])

    def take(self, count: int, without: Iterable[int] = ()) -> list[EncodedPrompt]:
        """Returns the next prompts, each once; fewer where there are no others.

        Args:
          count: how many.
          without: ids of prompts of this stream that are passed over.
        """
        there, chosen = set(without), []
        while len(chosen) < count and len(there) < len(self.prompts):
            prompt = self._at(self._position)
            self._position += 1
            if prompt.example.id not in there:
                there.add(prompt.example.id)
                chosen.append(prompt)
        return chosen

    def _at(self, position: int) -> EncodedPrompt:
        batch, place = divmod(position, self._identity["prompts_per_step"])
        if batch != self._open[0]:
            self._open = batch, self._batches[batch]
        return self.prompts[self._open[1][place]]

    def get_state(self) -> dict[str, int | str]:
        """Returns where the stream is; JSON can hold it."""
        return {"position": self._position, **self._identity}

    def set_state(self, state: Mapping[str, Any]):
        """Continues as the stream that returned `state` would have.

        Raises:
          ValueError: that stream had other prompts, another batch size or seed.
        """
        for name, value in self._identity.items():
            if state[name] != value:
                raise ValueError(
                    f"the checkpoint's prompt stream has {name} = {state[name]} and "
                    f"this run has {value}: resume with the same data and config, or "
                    "start in a new workdir"
                )
        self._position = state["position"]


def demonstration_batches(
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Demonstration],
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    seed: int,
    first_batch: int = 0,
) -> Iterator[DemonstrationBatch]:
    """Returns endless shuffled batches of demonstrations, from batch `first_batch` on.

    Batch k depends on the seed and k alone, so resuming needs no state. Every batch
    has the width of the longest demonstration, so that one compilation serves all.

    Args:
      prompts: N prompts.
      completions: N completions, without the end token.
      tokenizer: encodes the completions, ends and pads the rows.
      batch_size: rows of a batch; N may be smaller.
      seed: of the permutation, a new one in each epoch.
      first_batch: where to start.
    """
    rows = _demonstration_rows(prompts, completions, tokenizer)
    indices: Any = (
        grain.MapDataset.source(range(len(prompts)))
        .seed(seed)
        .shuffle()
        .repeat()
        .batch(batch_size, batch_fn=list)
    )
    return (_take(rows, indices[batch]) for batch in itertools.count(first_batch))


def _take(rows: DemonstrationBatch, chosen: Sequence[int]) -> DemonstrationBatch:
    return DemonstrationBatch(
        rows.tokens[chosen],
        rows.prompt_lengths[chosen],
        rows.lengths[chosen],
        rows.learned[chosen],
    )


def _demonstration_rows(
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Demonstration],
    tokenizer: Tokenizer,
) -> DemonstrationBatch:
    if not prompts or len(prompts) != len(completions):
        raise ValueError(
            f"{len(prompts)} prompts and {len(completions)} completions were given: "
            "give one completion a prompt, and at least one"
        )
    rows, learned = [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        whole = isinstance(completion, str)
        pieces = [Segment(completion, observed=False)] if whole else completion
        row, marks = list(prompt.tokens), [False] * len(prompt.tokens)
        for piece in pieces:
            tokens = tokenizer.encode(piece.text)
            row += tokens
            marks += [not piece.observed] * len(tokens)
        rows.append([*row, tokenizer.eos_ids[0]])
        learned.append([*marks, True])
    lengths = np.array([len(row) for row in rows], np.int32)
    shape = len(rows), int(lengths.max())
    tokens, mask = np.full(shape, tokenizer.pad_id, np.int32), np.zeros(shape, bool)
    for index, (row, marks) in enumerate(zip(rows, learned, strict=True)):
        tokens[index, : len(row)], mask[index, : len(row)] = row, marks
    prompt_lengths = np.array([len(prompt.tokens) for prompt in prompts], np.int32)
    return DemonstrationBatch(tokens, prompt_lengths, lengths, mask)
