"""Which row lies where: P prompts by n rows, split over Z groups of devices.

Rows of one prompt share its keys and values, so they lie side by side. Everything here
is host arithmetic on the numbers of rows.

A grid is halved, row by row of the table below, whenever what is left fits:

    (P, n) -> (P, n/2) -> ... -> (P, 1) -> (P/2, 1) -> ... -> (Z, 1)

One path, so that few shapes are compiled, and no step of it stores a prompt more often
than the step before.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

EMPTY = -1


@dataclasses.dataclass
class Grid:
    """The places of rows.

    Attributes:
      cells: which row lies in each place; EMPTY is none.
      owners: whose prompt each line of the grid holds; EMPTY is nobody's.
      prompt_tokens: how many tokens of it are shared.
      shards: Z; lines are split evenly over them, and rows never change shard.
    """

    cells: Int[np.ndarray, "P n"]
    owners: Int[np.ndarray, " P"]
    prompt_tokens: Int[np.ndarray, " P"]
    shards: int

    @classmethod
    def empty(cls, prompts: int, rows_per_prompt: int, shards: int) -> "Grid":
        """Returns a grid without rows; `shards` divides `prompts`."""
        return cls(
            cells=np.full((prompts, rows_per_prompt), EMPTY),
            owners=np.full(prompts, EMPTY),
            prompt_tokens=np.zeros(prompts, np.int32),
            shards=shards,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(P, n)."""
        return self.cells.shape

    def shard(self, line: int) -> int:
        """Returns the shard of a line."""
        return line * self.shards // len(self.cells)

    def local_line(self, line: int) -> int:
        """Returns the number of a line within its shard."""
        return line % (len(self.cells) // self.shards)

    def local_place(self, place: tuple[int, int]) -> int:
        """Returns the number of a place among those of its shard."""
        return self.local_line(place[0]) * self.shape[1] + place[1]

    def find(self, row: int) -> tuple[int, int] | None:
        """Returns the line and place of a row, None if it has none."""
        found = np.argwhere((self.cells == row) & (self.cells != EMPTY))
        return (int(found[0, 0]), int(found[0, 1])) if len(found) else None

    def place(self, row: int) -> tuple[int, int]:
        """Returns the line and place of a row that has one."""
        found = self.find(row)
        assert found is not None, f"row {row} has no place"
        return found

    def line_of(self, owner: int, shard: int) -> int | None:
        """Returns a line of a shard that holds a prompt, None if there is none."""
        per = len(self.cells) // self.shards
        found = np.flatnonzero(self.owners[shard * per : (shard + 1) * per] == owner)
        return shard * per + int(found[0]) if len(found) else None

    def free_line(self, shard: int | None = None) -> int | None:
        """Returns a line without rows, of the shard with the most, or of the one given.

        One that still holds a prompt is taken last.
        """
        empty = (self.cells == EMPTY).all(axis=1)
        by_shard = empty.reshape(self.shards, -1)
        if shard is None:
            shard = int(by_shard.sum(axis=1).argmax())
        lines = np.flatnonzero(by_shard[shard])
        if not len(lines):
            return None
        lines += shard * by_shard.shape[1]
        held = self.owners[lines] != EMPTY
        return int(lines[np.argmin(held)])

    def free_cell(self, owner: int, shard: int | None = None) -> tuple[int, int] | None:
        """Returns an empty place beside rows of a prompt, of any shard or of one.

        None if there is none.
        """
        lines = self.owners == owner
        if shard is not None:
            shards = np.arange(len(lines)) * self.shards // len(lines)
            lines = lines & (shards == shard)
        found = np.argwhere((self.cells == EMPTY) & lines[:, None])
        return (int(found[0, 0]), int(found[0, 1])) if len(found) else None

    def halved(self, smallest: int) -> "Grid | None":
        """Returns the smallest grid of the path that holds every row, rows moved.

        None if that is this one. Grids of fewer than `smallest` rows are not made.
        """
        best, shape = None, self.shape
        while (shape := _half(shape, self.shards)) and shape[0] * shape[1] >= smallest:
            packed = self.packed(shape)
            if packed is None:
                break
            best = packed
        return best

    def packed(self, shape: tuple[int, int]) -> "Grid | None":
        """Returns a grid of another shape with the same rows; None if they do not fit.

        Every row stays in its shard, and a line holds rows of one owner.
        """
        grid = Grid.empty(*shape, self.shards)
        old, new = len(self.cells) // self.shards, shape[0] // self.shards
        for shard in range(self.shards):
            line, last = shard * new, (shard + 1) * new
            rows = self._rows_by_owner(range(shard * old, (shard + 1) * old))
            for owner, members in rows.items():
                for first in range(0, len(members), shape[1]):
                    if line == last:
                        return None
                    part = members[first : first + shape[1]]
                    grid.cells[line, : len(part)] = part
                    source = self.line_of(owner, shard)
                    grid.owners[line] = owner
                    grid.prompt_tokens[line] = self.prompt_tokens[source]
                    line += 1
        return grid

    def sources(self, old: "Grid") -> tuple[np.ndarray, np.ndarray]:
        """Returns where the lines, and the places, of this grid lie in another.

        Both as [Z, ...] in numbers local to the shard; what is empty names the first.
        """
        lines = np.zeros(len(self.owners), np.int32)
        places = np.zeros(self.cells.shape, np.int32)
        for line, owner in enumerate(self.owners.tolist()):
            source = old.line_of(owner, self.shard(line)) if owner != EMPTY else None
            lines[line] = old.local_line(source or 0)
            for index, row in enumerate(self.cells[line].tolist()):
                if row != EMPTY:
                    places[line, index] = old.local_place(old.place(row))
        return lines.reshape(self.shards, -1), places.reshape(self.shards, -1)

    def _rows_by_owner(self, lines: Sequence[int]) -> dict[int, list[int]]:
        rows: dict[int, list[int]] = {}
        for line in lines:
            members = self.cells[line][self.cells[line] != EMPTY].tolist()
            if members:
                rows.setdefault(int(self.owners[line]), []).extend(members)
        return rows


def first_shape(
    blocks: int, block_rows: int, capacity: int, shards: int, saving: float
) -> tuple[int, int]:
    """Returns the shape of the grid that rows start in.

    Where all fit at once, whole groups lie in one line. Where rows wait for places, a
    line is free only when the longest of its rows has ended: with n rows of lengths
    like waiting times that takes the n-th harmonic number times the mean. Shorter
    lines are then better unless prompts are long (`saving`).

    Args:
      blocks: groups of rows with one prompt.
      block_rows: rows of the largest group.
      capacity: most rows at once; a multiple of `shards`.
      shards: Z.
      saving: slots of a prompt, as a multiple of the own slots of a row.
    """
    options = []
    n = block_rows
    while True:
        most = capacity // (n * shards) * shards
        if n == 1 or most * n >= 0.75 * capacity:
            options.append((n, most))
        if n == 1:
            break
        n = -(-n // 2)
    n, most = options[0]
    if blocks * -(-block_rows // n) > most:

        def slots_read(option: tuple[int, int]) -> float:
            waiting = sum(1 / k for k in range(1, option[0] + 1))
            return (saving / option[0] + 1) * waiting

        n, most = min(options, key=slots_read)
    lines = blocks * -(-block_rows // n)
    lines = -(-(1 << (lines - 1).bit_length()) // shards) * shards
    return min(lines, most), n


def _half(shape: tuple[int, int], shards: int) -> tuple[int, int] | None:
    """Returns the next shape of the path, None at its end."""
    lines, n = shape
    if n > 1:
        return lines, -(-n // 2)
    if lines % (2 * shards) == 0:
        return lines // 2, 1
    return None
