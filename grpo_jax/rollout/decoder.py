"""The devices' side of a rollout: the cache, and the grid of rows that lie in it.

Between two chunks it gives free places to rows that wait, halves the grid when what is
left fits, and shows the model what was given to rows instead of sampled. Sampling sees
none of it.
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from grpo_jax.policy import cache, sharding, transformer
from grpo_jax.policy.cache import KVCache
from grpo_jax.rollout import engine, placement
from grpo_jax.rollout import grid as grids
from grpo_jax.rollout.grid import EMPTY, Grid
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.setup import RolloutStats, Setup, bucket
from grpo_jax.rollout.stops import StopTable
from grpo_jax.rollout.texts import Status, Texts

# Token slots of one prefill or splice: bounds the memory of its activations.
PREFILL_TOKENS = 16_384
# A grid is not halved below this many rows: one more program would gain little.
_SMALLEST_ROWS = 8


class Decoder:
    """Rows in their places.

    Attributes:
      setup: the model's sampler.
      stats: what was done so far.
    """

    def __init__(
        self,
        setup: Setup,
        view: transformer.Params,
        sampling: Sampling,
        stops: StopTable | None = None,
    ):
        """Starts with no places; the first rows decide how many there are.

        Args:
          setup: the model's sampler.
          view: weights as `transformer.rollout_view` lays them out.
          sampling: how tokens are drawn.
          stops: strings at which a row is suspended.
        """
        self.setup, self.stats = setup, RolloutStats()
        self._view, self._sampling, self._table = view, sampling, stops
        self._grid = Grid.empty(0, 1, setup.shards)
        self._kv: Any = None
        read = {k: v for k, v in view.items() if k != "embedding" or "head" not in view}
        # Every group of devices reads all weights, tensor-parallel ones together.
        size = sum(x.nbytes for x in jax.tree.leaves(read))
        self._weight_bytes = size * setup.shards

    @property
    def cache_bytes(self) -> int:
        """Memory of the cache, over all devices."""
        return self._kv.nbytes if self._kv else 0

    def has_place(self, row: int) -> bool:
        """Whether keys and values of a row are kept."""
        return self._grid.find(row) is not None

    def vacate(self, texts: Texts, rows: Sequence[int]) -> None:
        """Gives up the places of rows."""
        texts.cached[rows] = 0
        self._grid.cells[np.isin(self._grid.cells, rows)] = EMPTY

    def arrange(self, texts: Texts, queue: placement.Queue) -> None:
        """Gives places to waiting rows, and halves the grid if none wait.

        Args:
          texts: the rows.
          queue: groups of waiting rows with one prompt; those placed are taken off.
        """
        if queue:
            self._open(queue, texts)
            self._admit(texts, queue)
        elif smaller := self._grid.halved(_SMALLEST_ROWS):
            self._regrid(texts, smaller)
            self.stats.halvings += 1

    def catch_up(self, texts: Texts) -> None:
        """Shows the model all that it has not seen of live rows but their last tokens.

        Makes room for that, and for the next chunk.
        """
        rows = self._grid.cells[self._grid.cells != EMPTY]
        rows = rows[texts.status[rows] == Status.LIVE]
        if not len(rows):
            return
        longest = int((texts.lengths - texts.prompt_lengths)[rows].max())
        slots = self._slots(longest + self.setup.chunk_steps)
        self._resize(slots, self._kv.keys, self._kv.values)
        missing = (texts.lengths - 1 - texts.cached)[rows]
        order = np.argsort(-missing, kind="stable")
        behind = rows[order][: (missing > 0).sum()].tolist()
        while behind:
            lacks = int(texts.lengths[behind[0]] - 1 - texts.cached[behind[0]])
            width = bucket(lacks, self.setup.columns)
            count = max(1, PREFILL_TOKENS // width)
            part, behind = behind[:count], behind[count:]
            self._show(texts, part, width)

    def decode(self, texts: Texts, *, greedy: bool = False) -> list[int]:
        """Samples one chunk; returns the rows that were suspended or done in it.

        Args:
          texts: the rows.
          greedy: take the most likely tokens, by the same program.
        """
        cells = self._grid.cells.ravel()
        live = (cells != EMPTY) & (texts.status[cells] == Status.LIVE)
        if not live.any():
            return []
        start, steps = time.perf_counter(), self.setup.chunk_steps
        sampling = self._sampling.replace(temperature=0.0) if greedy else self._sampling
        cursor = engine.Cursor(
            pending=texts.tokens[cells, np.maximum(texts.lengths[cells] - 1, 0)],
            live=live,
            remaining=(texts.limits - texts.lengths)[cells],
            keys=texts.keys[cells],
            stop_states=texts.stop_states[cells],
        )
        self._kv, drawn = engine.decode_chunk(
            self._view,
            self._with_lengths(texts),
            sharding.put_rows(cursor, self.setup.mesh),
            sampling,
            self._table,
            arch=self.setup.arch,
            eos_ids=self.setup.eos_ids,
            steps=steps,
        )
        drawn = jax.tree.map(lambda x: np.asarray(x)[live], drawn)
        rows = cells[live]
        scores = drawn.tokens, drawn.log_probs, drawn.log_mass
        texts.record(rows, drawn.counts, *scores)
        texts.stop_states[rows] = drawn.stop_states
        texts.stops[rows] = drawn.stops - 1
        full = texts.lengths[rows] >= texts.limits[rows]
        texts.finished[rows] = drawn.ended
        texts.status[rows[full]] = Status.DONE
        texts.status[rows[drawn.stops > 0]] = Status.SUSPENDED
        texts.status[rows[drawn.ended]] = Status.DONE
        self.stats.sampled_tokens += int(drawn.counts.sum())
        self.stats.decode_steps += steps
        self.stats.decode_slots += steps * cells.size
        read = self._weight_bytes + self._kv.nbytes
        self.stats.decode_bytes += steps * read
        self.stats.decode_seconds += time.perf_counter() - start
        return rows[texts.status[rows] != Status.LIVE].tolist()

    def _open(self, queue: placement.Queue, texts: Texts) -> None:
        """Makes the first places, or more of them if rows wait and there may be."""
        shards = self._grid.shards
        longest = max(int(texts.prompt_lengths[rows[0]]) for rows in queue) - 1
        shared_slots = bucket(longest, self.setup.max_prompt_tokens)
        if not self._grid.cells.size:
            lines, n = grids.first_shape(
                len(queue),
                max(map(len, queue)),
                self.setup.max_rows,
                shards,
                shared_slots / self.setup.max_completion_tokens,
            )
            self._grid = Grid.empty(lines, n, shards)
            self._kv = cache.empty(
                self.setup.arch,
                lines,
                n,
                shared_slots,
                self._slots(self.setup.chunk_steps + 1),
                self.setup.dtype,
                sharding=sharding.cache_sharding(self.setup.mesh),
            )
            return
        self._resize(shared_slots, self._kv.shared_keys, self._kv.shared_values)
        lines, n = self._grid.shape
        most = self.setup.max_rows // (n * shards) * shards
        needed = (self._grid.cells != EMPTY).any(axis=1).sum()
        needed += sum(-(-len(rows) // n) for rows in queue)
        while lines < min(needed, most):
            lines = min(2 * lines, most)
        if lines > self._grid.shape[0]:
            larger = self._grid.packed((lines, n))
            assert larger is not None, "a larger grid holds what a smaller one did"
            self._regrid(texts, larger)

    def _admit(self, texts: Texts, queue: placement.Queue) -> None:
        """Places waiting rows, and fills the cache with what they start from."""
        begun = self.stats.decode_steps > 0
        plan = placement.admit(self._grid, texts, queue)
        lines, n = self._grid.shape
        lines //= self._grid.shards
        self._copy(plan.prompt_copies, lines, of_prompts=True)
        waiting = [
            sorted(prompts, key=lambda prompt: -len(prompt.tokens))
            for prompts in plan.prompts
        ]
        while any(waiting):
            longest = max(len(part[0].tokens) for part in waiting if part)
            width = bucket(longest, self._kv.num_shared_slots)
            most = max(1, PREFILL_TOKENS // width // len(waiting))
            self._prefill([part[:most] for part in waiting], width)
            waiting = [part[most:] for part in waiting]
        self._copy(plan.row_copies, lines * n, of_rows=True)
        self.stats.refills += plan.rows * begun

    def _prefill(self, parts: list[list[placement.Prompt]], width: int) -> None:
        """Computes prompts, some of each shard, and puts them into their lines."""
        lines = len(self._grid.cells) // len(parts)
        count = bucket(max(map(len, parts)), lines, least=1)
        tokens = np.zeros((len(parts), count, width), np.int32)
        pairs: placement.Moves = [[] for _ in parts]
        for shard, part in enumerate(parts):
            for index, prompt in enumerate(part):
                tokens[shard, index, : len(prompt.tokens)] = prompt.tokens
                pairs[shard] += [(index, line) for line in prompt.lines]
                self.stats.prefill_tokens += len(prompt.tokens)
        self.stats.prefill_slots += tokens.size
        self._kv = engine.prefill(
            self._view,
            self._kv,
            self._put(tokens.reshape(-1, width)),
            *self._numbered(pairs, lines),
            arch=self.setup.arch,
            attention=self.setup.attention,
        )

    def _show(self, texts: Texts, part: list[int], width: int) -> None:
        """Runs the model over what the cache lacks of some rows."""
        shards, per = self._grid.shards, self._grid.cells.size // self._grid.shards
        members: list[list[int]] = [[] for _ in range(shards)]
        for row in part:
            members[self._grid.shard(self._grid.place(row)[0])].append(row)
        count = bucket(max(map(len, members)), per, least=1)
        tokens = np.zeros((shards, count, width), np.int32)
        counts = np.zeros((shards, count), np.int32)
        places = np.full((shards, count), per, np.int32)
        for shard, rows in enumerate(members):
            for index, row in enumerate(rows):
                known, end = texts.cached[row], texts.lengths[row] - 1
                tokens[shard, index, : end - known] = texts.tokens[row, known:end]
                counts[shard, index] = end - known
                places[shard, index] = self._grid.local_place(self._grid.place(row))
        self._kv = engine.catch_up(
            self._view,
            self._with_lengths(texts),
            self._put(tokens.reshape(-1, width)),
            self._put(counts.ravel()),
            self._put(places),
            arch=self.setup.arch,
        )
        texts.cached[part] = texts.lengths[part] - 1
        self.stats.prefill_tokens += int(counts.sum())
        self.stats.prefill_slots += tokens.size

    def _regrid(self, texts: Texts, new: Grid) -> None:
        """Moves every row to its place in another grid, one layer after the other."""
        prompts, rows = map(self._put, new.sources(self._grid))
        placed = new.cells[new.cells != EMPTY]
        beyond = (texts.lengths - texts.prompt_lengths)[placed].max(initial=0)
        slots = self._slots(int(beyond) + self.setup.chunk_steps)
        kv = self._kv
        for axis, shared, own in (
            (cache.KEY_SLOTS, kv.shared_keys, kv.keys),
            (cache.VALUE_SLOTS, kv.shared_values, kv.values),
        ):
            for index in range(len(own)):
                shared_slots = shared[index].shape[axis]
                shared[index] = engine.move(shared[index], prompts, shared_slots, axis)
                own[index] = engine.move(own[index], rows, slots, axis)
        self._grid = new
        self._kv = self._with_lengths(texts)

    def _resize(self, slots: int, keys: list[Array], values: list[Array]) -> None:
        """Grows a part of the cache to so many slots, one layer after the other."""
        for layers, axis in ((keys, cache.KEY_SLOTS), (values, cache.VALUE_SLOTS)):
            for index, layer in enumerate(layers):
                if slots > layer.shape[axis]:
                    layers[index] = engine.grow(layer, slots, axis)

    def _copy(self, pairs: placement.Moves, per_shard: int, **which: bool) -> None:
        if any(pairs):
            moves = self._numbered(pairs, per_shard)
            self._kv = engine.copy(self._kv, *moves, **which)

    def _numbered(self, pairs: placement.Moves, per_shard: int) -> tuple[Array, Array]:
        """Returns sources and targets [Z, m]; what fills up a list is dropped."""
        count = bucket(max(map(len, pairs)), per_shard, least=1)
        moves = np.full((2, len(pairs), count), per_shard, np.int32)
        moves[0] = 0
        for shard, part in enumerate(pairs):
            moves[:, shard, : len(part)] = np.reshape(part, (-1, 2)).T
        return self._put(moves[0]), self._put(moves[1])

    def _with_lengths(self, texts: Texts) -> KVCache:
        """Returns the cache with the lengths the rows have now."""
        cells, shared = self._grid.cells.ravel(), self._grid.prompt_tokens
        own = texts.cached[cells] - np.repeat(shared, self._grid.shape[1])
        own = np.where(cells == EMPTY, 0, own).astype(np.int32)
        return self._kv.replace(
            shared_lengths=self._put(shared), lengths=self._put(own)
        )

    def _slots(self, needed: int) -> int:
        """Returns the own slots for rows of `needed` tokens beyond the prompt."""
        return bucket(needed, self.setup.max_completion_tokens, least=64)

    def _put(self, array: np.ndarray) -> Array:
        return sharding.put_rows(array, self.setup.mesh)
