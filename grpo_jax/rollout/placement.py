"""Which waiting rows get which places, and what must be copied or computed for them."""

import collections
import dataclasses

import numpy as np
from jaxtyping import Int

from grpo_jax.rollout.grid import EMPTY, Grid
from grpo_jax.rollout.texts import Status, Texts

Queue = collections.deque[list[int]]
# Shard by shard, (from, to) in numbers local to the shard.
Moves = list[list[tuple[int, int]]]


@dataclasses.dataclass
class Prompt:
    """A prompt to be computed.

    Attributes:
      tokens: its ids but the last, which is pending in every row.
      lines: where it goes, in numbers local to the shard.
    """

    tokens: Int[np.ndarray, " T"]
    lines: list[int]


@dataclasses.dataclass
class Plan:
    """What the places that were given away cost.

    Attributes:
      prompts: to compute, of each shard.
      prompt_copies: from lines that already hold a prompt.
      row_copies: from places of rows to those of their clones.
      rows: how many rows were placed.
    """

    prompts: list[list[Prompt]]
    prompt_copies: Moves
    row_copies: Moves
    rows: int = 0


def admit(grid: Grid, texts: Texts, queue: Queue) -> Plan:
    """Places waiting groups while there is room, and says what is to be done for them.

    A clone goes beside its parent, if that still has its place, and starts from a copy
    of its keys and values; other rows start from their prompt.

    Args:
      grid: takes the rows.
      texts: rows placed become live, and say how much of them will be cached.
      queue: groups of rows with one prompt; those placed are taken off.
    """
    shards = range(grid.shards)
    plan = Plan([[] for _ in shards], [[] for _ in shards], [[] for _ in shards])
    provider = _Provider(grid, plan)
    copied_from: dict[tuple[int, int], tuple[int, int]] = {}
    while queue:
        rows = queue[0]
        owner = int(texts.owners[rows[0]])
        parent = grid.find(int(texts.parents[rows[0]]))
        place = _beside(grid, owner, parent, len(rows))
        if place is None and parent is not None:
            parent, place = None, _beside(grid, owner, None, len(rows))
        if place is None:
            break
        line, first = place
        if first == 0 and (grid.cells[line] == EMPTY).all():
            prompt = texts.tokens[rows[0], : texts.prompt_lengths[rows[0]] - 1]
            provider.provide(owner, prompt, line)
        placed, rest = rows[: grid.shape[1]], rows[grid.shape[1] :]
        grid.cells[line, first : first + len(placed)] = placed
        # A row may have been given tokens up to its limit while it waited.
        full = texts.lengths[placed] >= texts.limits[placed]
        texts.status[placed] = np.where(full, Status.DONE, Status.LIVE)
        texts.cached[placed] = texts.prompt_lengths[placed] - 1
        if parent is not None:
            texts.cached[placed] = _known(texts, placed[0], int(grid.cells[parent]))
            # Copies are made at once: the clone of a clone starts where that one does.
            source = copied_from[place] = copied_from.get(parent, parent)
            pair = grid.local_place(source), grid.local_place(place)
            plan.row_copies[grid.shard(line)].append(pair)
        plan.rows += len(placed)
        queue.popleft()
        if rest:
            queue.appendleft(rest)
    return plan


def _beside(
    grid: Grid, owner: int, parent: tuple[int, int] | None, count: int
) -> tuple[int, int] | None:
    """Returns a place for rows, in the shard of their parent if they have one.

    A single row goes beside others of its prompt if it can; else a line without rows.
    """
    shard = None if parent is None else grid.shard(parent[0])
    if count == 1 and (cell := grid.free_cell(owner, shard)):
        return cell
    line = grid.free_line(shard)
    return None if line is None else (line, 0)


def _known(texts: Texts, row: int, parent: int) -> int:
    """Returns how many tokens a clone has that are cached for its parent.

    Both may have been cut or given other tokens since.
    """
    most = min(texts.cached[parent], texts.lengths[row] - 1)
    alike = texts.tokens[row, :most] == texts.tokens[parent, :most]
    return int(most if alike.all() else alike.argmin())


class _Provider:
    """Sees to it that lines hold their prompts, each computed once in a shard."""

    def __init__(self, grid: Grid, plan: Plan):
        self._grid, self._plan = grid, plan
        self._computed: dict[tuple[int, int], Prompt] = {}
        self._copied_from: dict[int, int] = {}

    def provide(self, owner: int, tokens: Int[np.ndarray, " T"], line: int) -> None:
        """Has a line filled with a prompt: by a copy if its shard holds it."""
        if self._grid.owners[line] == owner:
            return
        shard, local = self._grid.shard(line), self._grid.local_line(line)
        held = self._grid.line_of(owner, shard)
        self._grid.owners[line] = owner
        self._grid.prompt_tokens[line] = len(tokens)
        if prompt := self._computed.get((shard, owner)):
            prompt.lines.append(local)
        elif held is None:
            prompt = self._computed[shard, owner] = Prompt(tokens, [local])
            self._plan.prompts[shard].append(prompt)
        else:
            # Copies are made at once, so none may start where another ends.
            source = self._copied_from.get(held, held)
            self._copied_from[line] = source
            pair = self._grid.local_line(source), local
            self._plan.prompt_copies[shard].append(pair)
