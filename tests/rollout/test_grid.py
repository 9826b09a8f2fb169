"""Rows keep their shard, a line has one owner, and nothing is lost on the way."""

import numpy as np
import pytest

from grpo_jax.rollout import grid as grids
from grpo_jax.rollout.grid import EMPTY, Grid

_ = EMPTY


def grid_of(cells, owners, shards=1):
    """A grid whose prompts have ten times the number of their owner tokens."""
    cells, owners = np.array(cells), np.array(owners)
    tokens = np.where(owners == EMPTY, 0, 10 * owners).astype(np.int32)
    return Grid(cells, owners, tokens, shards)


def random_grid(rng, lines, n, shards):
    """Some rows, some holes, some empty lines; owners may have several lines."""
    cells = np.full((lines, n), EMPTY)
    taken = rng.random((lines, n)) < rng.choice([0.2, 0.5, 0.9])
    cells[taken] = rng.permutation(taken.sum())
    return grid_of(cells, rng.integers(0, 4, lines), shards)


def test_numbers_are_local_to_the_shard():
    grid = grid_of([[0, 1], [2, _], [_, _], [3, 4]], [7, 8, _, 9], shards=2)
    assert [grid.shard(line) for line in range(4)] == [0, 0, 1, 1]
    assert [grid.local_line(line) for line in range(4)] == [0, 1, 0, 1]
    assert [grid.local_place(grid.place(row)) for row in range(5)] == [0, 1, 2, 2, 3]
    assert grid.find(9) is None and grid.find(EMPTY) is None
    assert grid.line_of(9, 1) == 3 and grid.line_of(9, 0) is None


def test_free_lines_are_those_of_the_emptiest_shard_without_a_prompt():
    cells = [[0, _], [_, _], [_, _], [_, _], [_, _], [1, _]]
    grid = grid_of(cells, [7, 8, _, 9, 9, 9], shards=2)
    assert grid.free_line(0) == 2  # line 1 still holds a prompt
    assert grid.free_line(1) == 3  # no other is left
    assert grid.free_line() == 2
    grid.cells[2, 0] = 5
    assert grid.free_line() == 3
    grid.cells[[1, 3, 4], 0] = [6, 7, 8]
    assert grid.free_line() is None and grid.free_line(1) is None


def test_a_free_place_is_beside_the_same_prompt():
    grid = grid_of([[0, _], [1, 2], [3, _], [4, _]], [7, 8, 8, 8], shards=2)
    assert grid.free_cell(8, 1) == (2, 1)
    assert grid.free_cell(7, 0) == (0, 1)
    assert grid.free_cell(8, 0) is None and grid.free_cell(7, 1) is None


@pytest.mark.parametrize(
    ("cells", "owners", "shards", "smallest", "shape"),
    [
        ([[0, 1, _, _], [2, _, 3, _]], [7, 8], 1, 1, (2, 2)),
        ([[0, _, _, _], [2, _, _, _]], [7, 8], 1, 1, (2, 1)),
        ([[0, _, _, _], [_, _, _, _]], [7, 8], 1, 1, (1, 1)),
        ([[0, _, _, _], [_, _, _, _]], [7, 8], 1, 2, (2, 1)),
        ([[0, _, _, _], [_, _, _, _]], [7, 8], 2, 1, (2, 1)),
        ([[_, _, _, _], [_, _, _, _]], [7, 8], 1, 4, (2, 2)),
        ([[0, 1, 2, _], [_, _, _, _]], [7, 8], 1, 1, (2, 2)),
        ([[0, 1, 2, _], [3, _, _, _]], [7, 8], 1, 1, None),
        ([[0, 1, 2], [3, _, _], [_, _, _]], [7, 8, _], 1, 1, (3, 2)),
        ([[0], [1], [_], [2]], [7, 7, 7, 8], 1, 1, None),
        ([[0], [_], [_], [2]], [7, 7, 7, 8], 1, 1, (2, 1)),
        ([[0], [2], [_], [_]], [7, 7, 7, 8], 2, 1, None),
        ([[0]], [7], 1, 1, None),
    ],
)
def test_the_path_of_halvings(cells, owners, shards, smallest, shape):
    halved = grid_of(cells, owners, shards).halved(smallest)
    assert shape == (halved and halved.shape)


def test_whole_groups_are_split_only_where_a_line_is_shorter():
    grid = grid_of([[0, 1, 2, 3], [4, _, _, _], [_] * 4, [_] * 4], [7, 8, 9, 9])
    assert grid.packed((4, 2)).cells.tolist() == [[0, 1], [2, 3], [4, _], [_, _]]
    assert grid.packed((4, 2)).owners.tolist() == [7, 7, 8, EMPTY]
    assert grid.packed((4, 2)).prompt_tokens.tolist() == [70, 70, 80, 0]
    assert grid.packed((4, 1)) is None


def test_packing_loses_nothing_and_says_where_all_came_from():
    rng, packed_some = np.random.default_rng(0), 0
    for _round in range(200):
        shards = int(rng.choice([1, 2, 4]))
        lines, n = shards * int(rng.integers(1, 5)), int(rng.integers(1, 5))
        old = random_grid(rng, lines, n, shards)
        shape = shards * int(rng.integers(1, 5)), int(rng.integers(1, 5))
        new = old.packed(shape)
        if new is None:
            continue
        packed_some += 1
        assert new.shape == shape
        rows = sorted(old.cells[old.cells != EMPTY].tolist())
        assert sorted(new.cells[new.cells != EMPTY].tolist()) == rows
        line_sources, place_sources = new.sources(old)
        for row in rows:
            before, after = old.place(row), new.place(row)
            assert old.shard(before[0]) == new.shard(after[0])
            assert old.owners[before[0]] == new.owners[after[0]]
            shard, local = new.shard(after[0]), new.local_place(after)
            assert place_sources[shard, local] == old.local_place(before)
            # The prompt comes from a line of the same shard that holds it.
            source = line_sources[shard, new.local_line(after[0])]
            source += shard * (lines // shards)
            assert old.owners[source] == new.owners[after[0]]
            assert new.prompt_tokens[after[0]] == old.prompt_tokens[source]
    assert packed_some > 50


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        # All fit: whole groups in lines, a power of two of them.
        (dict(blocks=6, block_rows=4, capacity=64, shards=1), (8, 4)),
        (dict(blocks=6, block_rows=4, capacity=24, shards=1), (6, 4)),
        (dict(blocks=1, block_rows=1, capacity=64, shards=1), (1, 1)),
        (dict(blocks=3, block_rows=8, capacity=64, shards=4), (4, 8)),
        # Rows wait: single places, unless prompts are long.
        (dict(blocks=64, block_rows=8, capacity=64, shards=1), (64, 1)),
        (dict(blocks=64, block_rows=8, capacity=64, shards=1, saving=3.0), (16, 4)),
        (dict(blocks=64, block_rows=8, capacity=64, shards=1, saving=50.0), (8, 8)),
        # Whole groups would leave devices without rows.
        (dict(blocks=8, block_rows=8, capacity=64, shards=16), (16, 4)),
        (dict(blocks=4, block_rows=16, capacity=16, shards=8), (16, 1)),
        (dict(blocks=4, block_rows=4, capacity=8, shards=8), (8, 1)),
        # A group larger than there are places.
        (dict(blocks=1, block_rows=20, capacity=8, shards=1), (8, 1)),
    ],
)
def test_first_shapes(arguments, shape):
    saving = arguments.pop("saving", 0.2)
    lines, n = grids.first_shape(**arguments, saving=saving)
    assert lines * n <= arguments["capacity"] and lines % arguments["shards"] == 0
    assert (lines, n) == shape
