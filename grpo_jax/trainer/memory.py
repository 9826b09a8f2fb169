"""What a run holds in the memory of each device, counted from shapes alone.

Four moments take turns, and the largest decides:

    rollout    a copy of the weights, the cache of keys and values, a step of decoding
    loss       gradients, the activations of a micro-batch, a chunk of its logits
    backward   the same, with what one layer needs in the place of the logits
    optimizer  gradients, and the new state beside the old one

All of them hold weights, optimizer state and, with a KL term, the reference. Arrays
whose size no weight and no cache decides are counted as the compiler makes them, and
rounded up; `tests/trainer/test_memory.py` holds the sums to what XLA says of programs
for a CPU. Nothing of this has been measured on a GPU or a TPU.
"""

import dataclasses
import math

import jax.numpy as jnp

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.policy import attention_kernels, chunked_attention, costs, sharding
from grpo_jax.policy.attention_kernels import Hardware
from grpo_jax.policy.presets import Architecture
from grpo_jax.rollout import decoder
from grpo_jax.rollout import grid as grids
from grpo_jax.rollout.setup import bucket

# Bytes by name, and those of each moment.
Parts = dict[str, float]
Moments = dict[str, Parts]

_WIDE = 4  # bytes of a float32


def total(moments: Moments) -> float:
    """Returns the bytes of the largest moment."""
    return max(sum(parts.values()) for parts in moments.values())


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Counts the memory of a run on one device of its mesh.

    Attributes:
      config: of the run.
      arch: the shape of the model.
      mesh: how the devices are arranged; they need not exist.
      hardware: what they are.
    """

    config: TrainConfig
    arch: Architecture
    mesh: sharding.AnyMesh
    hardware: Hardware

    @property
    def shards(self) -> int:
        """Groups of devices that each hold their part of the rows."""
        return math.prod(self.mesh.shape[axis] for axis in sharding.ROWS)

    @property
    def tensor(self) -> int:
        """Devices that split heads, F and V."""
        return self.mesh.shape["tensor"]

    @property
    def fsdp(self) -> int:
        """Devices that split weights, and gather them layer by layer."""
        return self.mesh.shape["fsdp"]

    @property
    def widest(self) -> int:
        """Tokens of the longest row of an update."""
        rollout = self.config.rollout
        return rollout.max_prompt_tokens + rollout.max_completion_tokens

    @property
    def step_rows(self) -> int:
        """Rows of a step, on all devices."""
        return self.config.rollout.prompts_per_step * self.config.rollout.group_size

    @property
    def update_tokens(self) -> int:
        """Slots of an update whose rows are all of full width, on all devices."""
        return self.step_rows // self.config.trainer.minibatches * self.widest

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the compute dtype."""
        return jnp.dtype(self.config.policy.dtype.value).itemsize

    @property
    def _worksize(self) -> int:
        """Bytes of a number of an activation: a CPU computes in float32 anyway."""
        return _WIDE if self.hardware.backend == "cpu" else self.itemsize

    @property
    def _widened(self) -> int:
        """Bytes of the copy of a number that the device cannot multiply as it is."""
        return self._worksize if self._worksize != self.itemsize else 0

    @property
    def kernel(self) -> choices.Attention:
        """How whole rows attend."""
        return attention_kernels.resolve(
            self.config.policy.attention,
            self.hardware,
            dtype=self.config.policy.dtype.value,
            head_dim=self.arch.head_dim,
        )

    @property
    def table(self) -> float:
        """Numbers of the embedding, or the head, on a device that has gathered it."""
        size = self.arch.vocab_size
        split = self.tensor if size % self.tensor == 0 else 1
        return size / split * self.arch.model_dim

    @property
    def _layers(self) -> float:
        """Numbers of the matrices of all layers, gathered."""
        return costs.matmul_params(self.arch) / self.tensor

    @property
    def _heads(self) -> tuple[float, float]:
        """Numbers of a token's queries, and of its keys or values, in one layer."""
        size = self.arch.head_dim / self.tensor
        return self.arch.num_heads * size, self.arch.num_kv_heads * size

    @property
    def _feed_forward(self) -> float:
        return self.arch.feed_forward_dim / self.tensor

    def weights(self, itemsize: int, *, fsdp: bool = True) -> float:
        """Returns the bytes of one device's part of the weights.

        Args:
          itemsize: bytes of a number.
          fsdp: whether they are split over that axis; the sampler's are not.
        """
        tables = self.table if self.arch.tied_head else 2 * self.table
        return itemsize * (tables + self._layers) / (self.fsdp if fsdp else 1)

    @property
    def state(self) -> Parts:
        """What is held all the time."""
        weights = self.weights(_WIDE)
        held = {"parameters": weights, "optimizer": 2 * weights}
        if self.config.objective.kl_coef:
            held["reference"] = self.weights(self.itemsize)
        return held

    def rollout(self, rows: int) -> Moments:
        """Returns what is held while `rows` rows are decoded at once on all devices.

        Evaluations are rollouts too, in which fewer rows share a prompt: the kind that
        holds most is returned.
        """
        per_token = costs.kv_bytes_per_token(self.arch, self.itemsize) / self.tensor
        kinds = []
        for lines, n, limit in self.grids(rows):
            read = {
                "parameters for sampling": self.weights(self.itemsize, fsdp=False),
                "KV of prompts": per_token * lines * self.prompt_slots,
                "KV of rows": per_token * lines * n * limit,
            }
            decoding = self._decoding(lines * n, limit, read["KV of rows"])
            decoding += self._widened / self.itemsize * sum(read.values())
            work = {"working memory": max(decoding, self._prefill(lines))}
            kinds.append(self.state | read | work)
        return {"rollout": max(kinds, key=lambda parts: sum(parts.values()))}

    def update(self, tokens: int) -> Moments:
        """Returns what is held while micro-batches have `tokens` slots.

        Args:
          tokens: on all devices, as `config.trainer.micro_batch_tokens`.
        """
        held = self.state | {"gradients": self.weights(_WIDE)}
        # A GPU makes the whole new state beside the old one.
        changes = 3 if self.hardware.backend == "gpu" else 1
        changes *= self.weights(_WIDE)
        optimizer = held | {"changes of parameters": changes}
        if self.itemsize < _WIDE:
            size = self.itemsize + self._widened
            held["parameters for computing"] = self.weights(size)
        rows, slots = self.micro_batch(tokens)
        held["activations"] = self._saved(slots)
        # Those of the tables are summed in float32, the layers' as they come.
        layers = self._layers / self.fsdp
        held["gradients of a micro-batch"] = (
            _WIDE * self.table + self._worksize * layers
        )
        return {
            "loss": held | {"logits chunk": self._logits(rows)},
            "backward": held | {"one layer": self._layer(slots)},
            "optimizer": optimizer,
        }

    def micro_batch(self, tokens: int) -> tuple[int, int]:
        """Returns the rows of one device at full width, and its slots at any width.

        Narrow rows fill a budget better than wide ones, so that there may be more slots
        than rows times width. A row that exceeds the budget is taken alone.
        """
        most = -(-self.update_tokens // self.shards)
        slots = max(self.widest, min(tokens // self.shards, most))
        return slots // self.widest, slots

    @property
    def prompt_slots(self) -> int:
        """Slots of the cache for a prompt."""
        longest = self.config.rollout.max_prompt_tokens
        return bucket(longest - 1, longest)

    def grids(self, rows: int) -> list[tuple[int, int, int]]:
        """Returns lines, rows a line and longest completion, of each kind of rollout.

        Lines are those of one device. First comes training, then evaluation, which is
        taken to have enough problems to fill all places.
        """
        rollout, evaluation = self.config.rollout, self.config.evaluation
        limit = rollout.max_completion_tokens
        longest = evaluation.max_completion_tokens or limit
        prompts = max(rollout.prompts_per_step, -(-rows // rollout.group_size))
        kinds = [(prompts, rollout.group_size, limit)]
        kinds.append((rows, 1 if evaluation.greedy else evaluation.samples, longest))
        found = []
        for blocks, n, limit in kinds:
            saving = self.prompt_slots / limit
            lines, n = grids.first_shape(blocks, n, rows, self.shards, saving)
            found.append((lines // self.shards, n, limit))
        return found

    def _saved(self, tokens: int) -> float:
        """Returns the activations that wait for the backward pass, of all layers."""
        D, F, (queries, keys) = self.arch.model_dim, self._feed_forward, self._heads
        # Queries and keys are kept as they are used; attention's result is as wide as
        # the queries.
        attention = 2 * queries + 2 * keys
        match self.config.policy.remat:
            case choices.Remat.FULL:
                numbers = D
            case choices.Remat.ATTENTION:
                numbers = D + attention
            case choices.Remat.DOTS:
                numbers = 2 * D + 2 * F + attention
            case choices.Remat.NONE:
                wide = _WIDE / self._worksize  # norms and softmax are in float32
                numbers = (4 + 2 * wide) * D + 6 * F + attention
                numbers += (1 + wide) * (queries + keys) * self.arch.qk_norm
                if self.kernel is choices.Attention.XLA:
                    numbers += (1 + wide) * self._scores(self.widest)
        return float(self._worksize * self.arch.num_layers * tokens * numbers)

    def _scores(self, width: int) -> float:
        """Returns the scores of a token that exist at a time, in rows of `width`."""
        heads = self.arch.num_heads / self.tensor
        block = chunked_attention.LARGEST_BLOCK
        match self.kernel:
            case choices.Attention.XLA:
                return heads * width
            case choices.Attention.XLA_CHUNKED:
                return heads * min(width, block * block / width)
            case _:
                return 0.0

    def _logits(self, rows: int) -> float:
        """Returns what the loss needs for a chunk of positions of `rows` rows."""
        columns = self.config.rollout.max_completion_tokens
        chunk = max(1, self.config.trainer.logits_chunk_tokens // rows)
        positions = rows * math.ceil(columns / math.ceil(columns / chunk))
        D = self.arch.model_dim
        arrays = 3 if self.hardware.backend == "cpu" else 2
        logits = arrays * _WIDE * positions * self.table / D
        # The head is gathered once for all chunks. Final hidden states of completions,
        # and their gradients.
        gathered = self.itemsize * self.table if self.fsdp > 1 else 0.0
        return logits + gathered + self._worksize * 2 * rows * columns * D

    def _layer(self, tokens: int) -> float:
        """Returns what the backward pass of one layer needs."""
        queries, keys = self._heads
        # Gate, up, their product, the residual stream, queries and keys, with norms and
        # without, and the gradients of all of these.
        numbers = 6 * self._feed_forward + 8 * self.arch.model_dim
        numbers += 4 * queries + 4 * keys
        if self.config.policy.remat in (choices.Remat.DOTS, choices.Remat.NONE):
            numbers -= 2 * self._feed_forward  # gate and up are stored
        if self.kernel is not choices.Attention.XLA:
            numbers += 4 * queries  # laid out in blocks
        scores = 3 * _WIDE * self._scores(self.widest)
        weights = self._worksize * self._layers / self.arch.num_layers
        return tokens * (self._worksize * numbers + scores) + weights

    def _decoding(self, rows: int, limit: int, own: float) -> float:
        """Returns what a step of decoding needs.

        Args:
          rows: of one device.
          limit: tokens of the longest completion.
          own: bytes of the rows' part of the cache.
        """
        samplings = self.config.rollout.sampling, self.config.evaluation.sampling
        arrays = 2 + 2 * any(each.top_p < 1 or each.min_p for each in samplings)
        arrays += 4 * any(each.top_k for each in samplings)
        slots = self.prompt_slots + limit
        heads = self.arch.num_heads / self.tensor
        a_row = max(
            _WIDE * arrays * self.table / self.arch.model_dim,
            (_WIDE + self.itemsize) * heads * slots,
            3 * self.itemsize * self._feed_forward,
        )
        if self.hardware.backend != "tpu":
            return rows * a_row
        # Writing the cache wants heads that fill the lanes of a register.
        size, lanes = self.arch.head_dim, attention_kernels.LANES
        return rows * a_row + own * math.ceil(size / lanes) * lanes / size

    def _prefill(self, lines: int) -> float:
        """Returns what showing prompts to the model needs; `lines` of one device."""
        width = self.prompt_slots
        most = max(1, decoder.PREFILL_TOKENS // (width * self.shards))
        # The layers are unrolled: what each adds to the residual stream is kept.
        a_token = _WIDE * self.arch.num_layers * self.arch.model_dim
        a_token += max(
            2 * self._worksize * self._feed_forward,
            (_WIDE + self.itemsize) * self._scores(width) + 2 * _WIDE * self._heads[0],
        )
        return min(most, lines) * width * a_token
