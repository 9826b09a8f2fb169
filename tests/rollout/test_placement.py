import collections

import pytest

from grpo_jax.records import Origin
from grpo_jax.rollout import placement
from grpo_jax.rollout.grid import EMPTY, Grid
from grpo_jax.rollout.texts import Status, Texts

_ = EMPTY


def texts_of(owners, parents=None):
    """Rows with a prompt of three tokens, that of their owner, and room for nine."""
    texts = Texts.empty(0, 12, 2)
    for row in texts.add(len(owners)).tolist():
        texts.owners[row], texts.limits[row] = owners[row], 12
        texts.prompt_lengths[row] = 3
        texts.append(row, [owners[row], 40, 41], Origin.PROMPT)
    for row, parent in (parents or {}).items():
        texts.parents[row] = parent
    return texts


def say(texts, row, *tokens):
    """A row has sampled tokens; the last is pending."""
    texts.append(row, list(tokens), Origin.SAMPLED)
    texts.cached[row] = texts.lengths[row] - 1


def admit(grid, texts, *groups):
    queue = collections.deque(map(list, groups))
    return placement.admit(grid, texts, queue), list(queue)


def computed(plan):
    """Of each shard, the owners of the prompts to compute and their lines."""
    return [
        [(prompt.tokens.tolist(), prompt.lines) for prompt in part]
        for part in plan.prompts
    ]


def test_groups_lie_in_lines_and_each_prompt_is_computed_once():
    texts, grid = texts_of([7, 7, 8, 8, 8]), Grid.empty(4, 2, 1)
    plan, waiting = admit(grid, texts, [0, 1], [2, 3, 4])
    assert grid.cells.tolist() == [[0, 1], [2, 3], [4, _], [_, _]]
    assert grid.owners.tolist() == [7, 8, 8, EMPTY]
    assert grid.prompt_tokens.tolist() == [2, 2, 2, 0]
    assert computed(plan) == [[([7, 40], [0]), ([8, 40], [1, 2])]]
    assert plan.prompt_copies == plan.row_copies == [[]]
    assert plan.rows == 5 and not waiting
    assert (texts.status == Status.LIVE).all() and (texts.cached == 2).all()


def test_what_finds_no_line_waits_in_its_turn():
    texts, grid = texts_of([7, 8, 8, 8, 9]), Grid.empty(2, 2, 1)
    plan, waiting = admit(grid, texts, [0], [1, 2, 3], [4])
    assert grid.cells.tolist() == [[0, _], [1, 2]]
    assert waiting == [[3], [4]] and plan.rows == 3
    assert texts.status[3:].tolist() == [Status.QUEUED] * 2
    grid.cells[0] = EMPTY
    plan, waiting = admit(grid, texts, *waiting)
    assert grid.cells.tolist() == [[3, _], [1, 2]] and waiting == [[4]]


def test_every_shard_computes_what_it_holds():
    texts, grid = texts_of([7, 7, 7, 8]), Grid.empty(4, 1, 2)
    plan, _waiting = admit(grid, texts, [0, 1, 2], [3])
    assert grid.cells.tolist() == [[0], [2], [1], [3]]
    assert computed(plan) == [[([7, 40], [0, 1])], [([7, 40], [0]), ([8, 40], [1])]]


def test_a_prompt_that_a_line_still_holds_is_not_computed_again():
    texts, grid = texts_of([7, 7, 7, 7]), Grid.empty(3, 2, 1)
    admit(grid, texts, [0])
    grid.cells[0] = EMPTY
    # The free line without a prompt is taken first, and the prompt copied into it.
    plan, _waiting = admit(grid, texts, [1, 2])
    assert grid.cells.tolist() == [[_, _], [1, 2], [_, _]]
    assert (computed(plan), plan.prompt_copies) == ([[]], [[(0, 1)]])
    # A line that holds it already needs nothing.
    plan, _waiting = admit(grid, texts, [3])
    assert grid.cells.tolist() == [[3, _], [1, 2], [_, _]]
    assert (computed(plan), plan.prompt_copies) == ([[]], [[]])


def test_a_single_row_joins_others_of_its_prompt():
    texts, grid = texts_of([7, 8, 8, 7]), Grid.empty(4, 2, 2)
    admit(grid, texts, [0], [1, 2])
    plan, _waiting = admit(grid, texts, [3])
    assert grid.cells.tolist() == [[0, 3], [_, _], [1, 2], [_, _]]
    assert (computed(plan), plan.prompt_copies) == ([[], []], [[], []])
    assert texts.cached[3] == 2


def test_copies_start_from_what_was_there_before_any_of_them():
    """The only line with a prompt is given to another one in the same admission."""
    texts, grid = texts_of([7, 7, 7, 7, 7, 8, 8]), Grid.empty(3, 2, 1)
    admit(grid, texts, [0])
    grid.cells[0], grid.owners[2] = EMPTY, 9
    plan, _waiting = admit(grid, texts, [1, 2], [5, 6], [3, 4])
    assert grid.cells.tolist() == [[5, 6], [1, 2], [3, 4]]
    assert plan.prompt_copies == [[(0, 1), (0, 2)]]
    assert computed(plan) == [[([8, 40], [0])]]


@pytest.fixture
def parent():
    """Row 0 has said four tokens and lies in shard 1; row 1 is to be its clone."""
    texts = texts_of([7, 7, 7], parents={1: 0, 2: 1})
    say(texts, 0, 20, 21, 22, 23)
    grid = Grid.empty(4, 2, 2)
    grid.cells[2], grid.owners[2], grid.prompt_tokens[2] = [0, _], 7, 2
    texts.status[0] = Status.LIVE
    return texts, grid


def test_a_clone_goes_beside_its_parent_and_copies_what_they_share(parent):
    texts, grid = parent
    say(texts, 1, 20, 21, 22)
    plan, _waiting = admit(grid, texts, [1])
    assert grid.cells[2].tolist() == [0, 1]
    assert plan.row_copies == [[], [(0, 1)]] and computed(plan) == [[], []]
    assert texts.cached[1] == 5  # all but its last token


def test_a_clone_in_another_line_of_the_shard_copies_the_prompt_too(parent):
    texts, grid = parent
    say(texts, 1, 20, 21, 22)
    grid.cells[2, 1] = 99
    plan, _waiting = admit(grid, texts, [1])
    assert grid.cells[3].tolist() == [1, _]
    assert plan.prompt_copies == [[], [(0, 1)]]
    assert plan.row_copies == [[], [(0, 2)]]
    assert texts.cached[1] == 5


def test_a_clone_without_its_parent_starts_from_the_prompt(parent):
    texts, grid = parent
    say(texts, 1, 20, 21, 22)
    grid.cells[2:] = 99
    plan, _waiting = admit(grid, texts, [1])
    assert grid.cells[0].tolist() == [1, _]
    assert computed(plan) == [[([7, 40], [0])], []] and plan.row_copies == [[], []]
    assert texts.cached[1] == 2


def test_a_clone_goes_elsewhere_if_the_shard_of_its_parent_is_full(parent):
    texts, grid = parent
    say(texts, 1, 20, 21, 22)
    grid.cells[2, 1] = grid.cells[3] = 99
    plan, _waiting = admit(grid, texts, [1])
    assert grid.cells[0].tolist() == [1, _]
    assert computed(plan) == [[([7, 40], [0])], []] and plan.row_copies == [[], []]
    assert texts.cached[1] == 2


def test_a_clone_of_a_clone_starts_where_that_one_does(parent):
    """Both are placed at once, so the first clone has nothing to copy from yet."""
    texts, grid = parent
    grid.cells[3], grid.owners[3] = [_, 99], 7
    say(texts, 1, 20, 21, 22)
    say(texts, 2, 20, 21)
    plan, _waiting = admit(grid, texts, [1], [2])
    assert plan.row_copies == [[], [(0, 1), (0, 2)]]
    assert texts.cached[1:].tolist() == [5, 4]


@pytest.mark.parametrize(
    ("says", "cut", "cached"),
    [
        ([20, 21], 7, 4),
        ([20, 21, 30, 31, 32], 7, 5),  # was given other tokens since
        ([20, 21, 22, 23, 30], 7, 6),  # has more than the parent
        ([20, 21, 22, 23], 5, 4),  # the parent has been cut since
        ([30], 7, 3),
        ([], 7, 2),
    ],
)
def test_only_what_both_say_is_copied(parent, says, cut, cached):
    texts, grid = parent
    texts.truncate(0, cut)
    say(texts, 1, *says)
    admit(grid, texts, [1])
    assert texts.cached[1] == cached


def test_a_row_that_was_filled_while_it_waited_is_done():
    texts, grid = texts_of([7, 7]), Grid.empty(1, 2, 1)
    texts.append(0, [5] * 9, Origin.OBSERVATION)
    admit(grid, texts, [0, 1])
    assert texts.status.tolist() == [Status.DONE, Status.LIVE]
