"""Guidance: some completions of a group start from the beginning of an expert's trace.

Which rows are guided, what a trace may give away, the prefixes themselves, and the
reward that says how much guidance is needed. How the length then moves is
`guidance_length`. Besides the letters of the package, W counts the columns of traces.

Source: G2RPO-A (arXiv 2508.13023).
"""

# jax leaves parts of its own signatures untyped:
# pyright: reportUnknownMemberType=false

import bisect
import itertools
import math
from collections.abc import Collection, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from grpo_jax.choices import SignalRows
from grpo_jax.objective import masked

# What ends the thoughts of a trace, or begins its answer.
ANSWER_MARKS = ("</think>", "<answer>", r"\boxed")

# Products of lengths and fractions that are whole numbers on paper may be rounded to
# just below: this part of a product is forgiven before it is cut to whole tokens. It is
# ten times what float32 loses, and less than a token below a million of them.
_ROUNDING = 1e-6


def guided_rows(groups: int, group_size: int, fraction: float) -> Bool[Array, " B"]:
    """Computes which rows are guided: the first ceil(fraction G) of every group.

    Args:
      groups: number of groups, N.
      group_size: rows of a group, G, at least 1.
      fraction: share of a group that is guided, from 0 to 1.

    Returns:
      True for guided rows, the rows of a group adjacent.

    Raises:
      ValueError: `fraction` is not from 0 to 1.

    Source: arXiv 2508.13023; its released program counts guided rows over the batch, so
    that groups get different numbers of them.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: it must be from 0 to 1")
    product = fraction * group_size
    count = math.ceil(product - _ROUNDING * product)
    return jnp.tile(jnp.arange(group_size) < count, groups)


def splice(
    traces: Int[Array, "N W"],
    limits: Int[Array, " N"],
    lengths: Int[Array, "#N"] | Int[Array, ""],
    guided: Bool[Array, " B"],
) -> tuple[Int[Array, "B W"], Int[Array, " B"]]:
    """Computes what every row starts from: the first min(length, limit) ids of a trace.

    Shapes do not depend on the lengths, so that new ones compile nothing.

    Args:
      traces: token ids of one trace a prompt, right padded.
      limits: most tokens of each trace that may be given, from `trace_limit`.
      lengths: tokens to give, of every prompt or of all of them.
      guided: which rows are guided, from `guided_rows`; B is a multiple of N.

    Returns:
      The prefixes, 0 past their end, and their lengths, which are 0 where a row is not
      guided.

    Raises:
      ValueError: the prompts do not divide the rows.
    """
    prompts, columns = traces.shape
    rows = guided.shape[0]
    if not prompts or rows % prompts:
        raise ValueError(f"{prompts} prompts do not divide {rows} rows: give G each")
    given_N = jnp.minimum(jnp.broadcast_to(lengths, limits.shape), limits)
    given_N = jnp.clip(given_N, 0, columns)
    given_B = jnp.where(guided, jnp.repeat(given_N, rows // prompts), 0)
    inside_BW = jnp.arange(columns)[None] < given_B[:, None]
    traces_BW = jnp.repeat(traces, rows // prompts, axis=0)
    return jnp.where(inside_BW, traces_BW, 0), given_B


def answer_boundary(text: str) -> int:
    r"""Returns where a trace stops to be reasoning: at its first answer mark.

    Args:
      text: of the whole trace.

    Returns:
      The index of the first character of `</think>`, `<answer>` or `\boxed`, whichever
      comes first; the length of the text where there is none.
    """
    found = (text.find(mark) for mark in ANSWER_MARKS)
    return min((index for index in found if index >= 0), default=len(text))


def tokens_before(ends: Sequence[int], boundary: int) -> int:
    """Returns how many leading tokens lie whole before a boundary.

    A token that reaches over the boundary, such as one of a full stop and the first
    character of a tag, is not counted, nor is any after it.

    Args:
      ends: where each token ends in the text, never falling. In characters, or in
        bytes: `itertools.accumulate(map(len, pieces))` of the tokens' bytes.
      boundary: an index of the same text, in the same unit.
    """
    return bisect.bisect_right(ends, boundary)


def reasoning_tokens(pieces: Sequence[bytes]) -> int:
    """Returns how many leading tokens of a trace come before its answer.

    Args:
      pieces: the bytes that each token adds to the text; b"" for special tokens.
    """
    # Latin-1 writes a byte as a character, and marks are ASCII, which UTF-8 keeps.
    text = b"".join(pieces).decode("latin-1")
    ends = list(itertools.accumulate(map(len, pieces)))
    return tokens_before(ends, answer_boundary(text))


def trace_limit(
    tokens: Sequence[int],
    *,
    fraction: float,
    room: int,
    stops: Collection[int] = (),
    boundary: int | None = None,
) -> int:
    """Computes how many tokens of a trace may be given away at most.

        min(floor(fraction tokens), boundary, index of the first stop, room - 1)

    A trace given whole would hand over its answer: a reward for nothing generated.

    Args:
      tokens: ids of the whole trace, without padding.
      fraction: largest part of the trace to give, from 0 to 1.
      room: tokens that the context and the completion's budget leave after the prompt;
        one of them is left to be generated.
      stops: ids that must not be given: those that end a sequence, and tags that are
        special tokens, which leave no text.
      boundary: tokens before the answer, from `reasoning_tokens`; None without one.

    Returns:
      A number of tokens, at least 0.

    Raises:
      ValueError: `fraction` is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: it must be from 0 to 1")
    product = fraction * len(tokens)
    share = min(math.floor(product + _ROUNDING * product), len(tokens))
    end = len(tokens) if boundary is None else boundary
    forbidden = set(stops)
    found = (index for index, token in enumerate(tokens) if token in forbidden)
    return max(min(share, end, next(found, len(tokens)), room - 1), 0)


def signal(
    rewards: Float[Array, " B"], guided: Bool[Array, " B"], *, scope: SignalRows
) -> Float[Array, ""]:
    """Computes the reward that the guidance length answers to, a mean over rows.

    Args:
      rewards: one number a row, NaN where a row has no reward.
      guided: which rows were guided.
      scope: whose rewards. With ALL, as published, guidance moves what measures it.

    Returns:
      The mean over the rows of the scope that have a reward; NaN where there is none.
    """
    mask = ~jnp.isnan(rewards)
    match scope:
        case SignalRows.UNGUIDED:
            mask &= ~guided
        case SignalRows.ALL:
            pass
    return jnp.where(jnp.any(mask), masked.mean(rewards, mask), jnp.nan)


def anneal(
    length: Int[Array, "*S"],
    step: Int[Array, ""] | int,
    *,
    total_steps: int,
    fraction: float,
) -> Int[Array, "*S"]:
    """Computes lengths that end at 0: scaled down over the last part of the steps.

        length * clip((total_steps - 1 - step) / (fraction total_steps), 0, 1)

    Args:
      length: tokens.
      step: steps taken before this one; the last one is total_steps - 1, and gets 0.
      total_steps: of the run.
      fraction: part of the steps in which lengths fall, from 0 to 1; 0 is off.

    Returns:
      Whole tokens, int32.

    Raises:
      ValueError: `fraction` is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}: it must be from 0 to 1")
    if not fraction:
        return length.astype(jnp.int32)
    left = (total_steps - 1 - jnp.asarray(step)).astype(jnp.float32)
    scale = jnp.clip(left / max(fraction * total_steps, 1.0), 0, 1)
    return whole_tokens(length.astype(jnp.float32) * scale)


def per_prompt(
    length: Int[Array, ""], pass_rates: Float[Array, " N"]
) -> Int[Array, " N"]:
    """Computes the length of every prompt: the less, the more often it is solved.

        length * (1 - pass rate)

    Args:
      length: tokens.
      pass_rates: recent share of completions that were right, from 0 to 1; NaN for a
        prompt never seen, which gets the whole length.

    Returns:
      Whole tokens, int32, from 0 to `length`.
    """
    rates_N = jnp.clip(jnp.nan_to_num(pass_rates, nan=0.0), 0, 1).astype(jnp.float32)
    # 1 - .99 has lost more than the cut forgives: whole tokens are taken away instead.
    taken_N = -whole_tokens(-length.astype(jnp.float32) * rates_N)
    return length.astype(jnp.int32) - taken_N


def whole_tokens(amounts: Float[Array, "*S"]) -> Int[Array, "*S"]:
    """Cuts amounts downwards, and one that is whole but for rounding to itself."""
    return jnp.floor(amounts + _ROUNDING * jnp.abs(amounts)).astype(jnp.int32)
