"""Log-probs of completion tokens under a policy, in the forward pass of an update."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from grpo_jax import choices
from grpo_jax.objective.log_probs import token_log_probs
from grpo_jax.policy import sharding, transformer
from grpo_jax.policy.presets import Architecture


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Computes log-probs of completion tokens under a policy.

    Attributes:
      arch: the shape of the model.
      mesh: the devices that split the rows.
      dtype: compute dtype.
      remat: what the backward pass recomputes.
      attention: its implementation.
      temperature: that of the sampler, so that what is scored is what was drawn.
      completion_columns: longest completion; only that many positions are scored.
      chunk_tokens: positions whose logits exist at one time, on each device.
    """

    arch: Architecture
    mesh: Mesh
    dtype: choices.Dtype
    remat: choices.Remat
    attention: choices.Attention
    temperature: float
    completion_columns: int
    chunk_tokens: int

    @property
    def row_shards(self) -> int:
        """Number of devices that split the rows; it divides them."""
        return math.prod(self.mesh.shape[axis] for axis in sharding.ROWS)

    def log_probs(
        self,
        params: transformer.Params,
        tokens: Int[Array, "B T"],
        prompt_lengths: Int[Array, " B"],
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Returns each completion token's log-prob and the entropy it was drawn at.

        Args:
          params: weights in the compute dtype.
          tokens: rows; column t of the result speaks of token t, and prompt columns
            are 0.
          prompt_lengths: tokens of each row's prompt.
        """
        T = tokens.shape[1]
        hidden_BTD = transformer.forward(
            params, self.arch, tokens, remat=self.remat, attention=self.attention
        )
        width = min(self.completion_columns, T - 1)
        columns_BC = prompt_lengths[:, None] + jnp.arange(width)[None]
        inside_BC = jnp.minimum(columns_BC, T - 1)
        scores = token_log_probs(
            jnp.take_along_axis(hidden_BTD, inside_BC[..., None] - 1, axis=1),
            self._head_table(params),
            jnp.take_along_axis(tokens, inside_BC, axis=1),
            temperature=self.temperature,
            chunk_columns=max(1, self.chunk_tokens * self.row_shards // len(tokens)),
            row_groups=self.row_shards,
        )
        return tuple(_scatter(x, columns_BC, T) for x in scores)  # pyright: ignore

    def _head_table(self, params: transformer.Params) -> Float[Array, "V D"]:
        """Returns the head, split by vocabulary only: gathered once for all chunks."""
        shardings = sharding.param_shardings(self.mesh, params, axes=("tensor",))
        gathered = jax.lax.with_sharding_constraint(params, shardings)
        return transformer.head_table(gathered)


def _scatter(
    values: Float[Array, "B C"], columns: Int[Array, "B C"], width: int
) -> Float[Array, "B T"]:
    """Puts values at their columns of rows of `width`; columns past it are dropped."""

    def one(values_C: Array, columns_C: Array) -> Array:
        return jnp.zeros(width, values.dtype).at[columns_C].set(values_C, mode="drop")

    return jax.vmap(one)(values, columns)
