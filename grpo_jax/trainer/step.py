"""The jitted update: score rows, differentiate the loss, move the weights.

Gradients are accumulated over micro-batches in float32. Every token's weight in the
loss is normalised before the batch is sliced (`TrainBatch.loss_weights`), so slices add
up to the same loss however many there are.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig
from grpo_jax.objective import losses
from grpo_jax.objective.log_probs import token_log_probs
from grpo_jax.policy import sharding, transformer
from grpo_jax.policy.presets import Architecture
from grpo_jax.records import TrainBatch, TrainState

# Sums over rows and tokens, and maxima, of one micro-batch.
Diagnostics = tuple[dict[str, Array], dict[str, Array]]
Loss = Callable[[Array, Array, TrainBatch], tuple[Array, Diagnostics]]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """Computes log-probs of completion tokens under a policy.

    Attributes:
      arch: the shape of the model.
      dtype: compute dtype.
      remat: what the backward pass recomputes.
      temperature: the sampling temperature, so that what is scored is what was drawn.
      completion_columns: longest completion; only that many positions are scored.
      chunk_tokens: positions whose logits exist at one time, on each device.
      micro_batch_rows: rows in one pass; 0 is all of them.
    """

    arch: Architecture
    dtype: choices.Dtype
    remat: choices.Remat
    temperature: float
    completion_columns: int
    chunk_tokens: int
    micro_batch_rows: int

    def log_probs(
        self, params: transformer.Params, batch: TrainBatch, mesh: Mesh
    ) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
        """Returns each completion token's log-prob and the entropy it was drawn at.

        Args:
          params: weights in the compute dtype.
          batch: rows; column t of the result speaks of token t, and prompt columns
            are 0.
          mesh: the devices that split the rows.
        """
        B, T = batch.tokens.shape
        hidden_BTD = transformer.forward(
            params, self.arch, batch.tokens, remat=self.remat
        )
        width = min(self.completion_columns, T - 1)
        columns_BC = batch.prompt_lengths[:, None] + jnp.arange(width)[None]
        inside_BC = jnp.minimum(columns_BC, T - 1)
        rows_per_device = -(-B // (mesh.shape["data"] * mesh.shape["fsdp"]))
        scores = token_log_probs(
            jnp.take_along_axis(hidden_BTD, inside_BC[..., None] - 1, axis=1),
            transformer.head_table(params),
            jnp.take_along_axis(batch.tokens, inside_BC, axis=1),
            temperature=self.temperature,
            chunk_columns=max(1, self.chunk_tokens // rows_per_device),
        )
        return tuple(_scatter(x, columns_BC, T) for x in scores)  # pyright: ignore

    def score(self, params: Any, batch: TrainBatch, mesh: Mesh) -> Float[Array, "B T"]:
        """Returns log-probs as a constant, micro-batch by micro-batch."""
        params = transformer.cast(params, self.dtype)

        def one(micro: dict[str, Array]) -> Array:
            return self.log_probs(params, TrainBatch(**micro), mesh)[0]

        scores = jax.lax.map(one, self.split(batch))
        return _join(scores)

    def split(self, batch: TrainBatch) -> dict[str, Array]:
        """Reshapes [B, ...] to [micro-batches, rows, ...], by name of the field.

        Micro-batch m takes rows m, m + M, m + 2M, ... so that each one is spread over
        the devices exactly as the batch is. `TrainBatch(**micro)` is a batch again.
        """
        B = batch.tokens.shape[0]
        count = B // (self.micro_batch_rows or B)

        def one(x: Array) -> Array:
            return x.reshape(B // count, count, *x.shape[1:]).swapaxes(0, 1)

        return {n: one(x) for n, x in vars(batch).items() if x is not None}


def make_update(
    scorer: Scorer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
) -> Callable[[TrainState, TrainBatch], tuple[TrainState, dict[str, Array]]]:
    """Returns the pure function (state, batch) -> (state, metrics), ready for jit.

    An update whose loss or gradient is not finite leaves the state as it was, and says
    so in `optimizer/skipped`.
    """

    def update(
        state: TrainState, batch: TrainBatch
    ) -> tuple[TrainState, dict[str, Array]]:
        params = transformer.cast(state.params, scorer.dtype)

        def micro_loss(
            params: Any, micro: dict[str, Array]
        ) -> tuple[Array, Diagnostics]:
            rows = TrainBatch(**micro)
            log_probs, entropy = scorer.log_probs(params, rows, mesh)
            return loss(log_probs, entropy, rows)

        def accumulate(carry: Any, micro: dict[str, Array]) -> tuple[Any, None]:
            total, gradients, sums, maxima = carry
            (value, (more, greater)), new = jax.value_and_grad(
                micro_loss, has_aux=True
            )(params, micro)
            gradients = jax.tree.map(
                lambda g, n: g + n.astype(jnp.float32), gradients, new
            )
            sums = jax.tree.map(jnp.add, sums, more)
            maxima = jax.tree.map(jnp.maximum, maxima, greater)
            return (total + value, gradients, sums, maxima), None

        micros = scorer.split(batch)
        shapes = jax.eval_shape(
            micro_loss, params, jax.tree.map(lambda x: x[0], micros)
        )
        sums, maxima = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1])
        zeros = jax.lax.with_sharding_constraint(
            jax.tree.map(jnp.zeros_like, state.params),
            sharding.param_shardings(mesh, state.params),
        )
        (total, gradients, sums, maxima), _ = jax.lax.scan(
            accumulate, (jnp.zeros(()), zeros, sums, maxima), micros
        )
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(total) & jnp.isfinite(norm)
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        moved = state.replace(
            params=optax.apply_updates(state.params, changes),
            opt_state=opt_state,
            updates=state.updates + 1,
        )
        new_state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), moved, state)
        tokens = jnp.maximum(sums.pop("tokens"), 1)
        metrics = {
            "loss/total": total,
            "optimizer/gradient_norm": norm,
            "optimizer/learning_rate": jnp.asarray(schedule(state.updates)),
            "optimizer/skipped": 1.0 - finite,
            **{name: value / tokens for name, value in sums.items()},
            **maxima,
        }
        return new_state, metrics

    return update


def grpo_loss(config: ObjectiveConfig) -> Loss:
    """Returns the policy-gradient loss of a configuration."""

    def loss(
        log_probs: Array, entropy: Array, batch: TrainBatch
    ) -> tuple[Array, Diagnostics]:
        value, seen = losses.policy_loss(
            log_probs,
            batch.old_log_probs,
            batch.reference_log_probs,
            batch.advantages,
            batch.loss_weights,
            loss=config.loss,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            kl_coef=config.kl_coef,
            divergence=config.divergence,
        )
        counted = batch.loss_weights != 0
        # Against what the trainer said when the rollout was taken: how far the two
        # programs are apart, whatever has been learned since.
        old = log_probs if batch.old_log_probs is None else batch.old_log_probs
        gap = jnp.where(counted, jnp.abs(old - batch.behavior_log_probs), 0)
        sums = {
            "tokens": counted.sum().astype(jnp.float32),
            "policy/entropy": jnp.where(counted, entropy, 0).sum(),
            "policy/clip_fraction": seen.clipped.sum().astype(jnp.float32),
            "policy/sampler_gap_mean": gap.sum(),
        }
        maxima = {
            "policy/ratio_max": seen.importance_ratio.max(),
            "policy/sampler_gap_max": gap.max(),
        }
        if batch.reference_log_probs is not None:
            sums["loss/kl"] = seen.kl.sum()
            maxima["loss/kl_max"] = seen.kl.max()
        return value, jax.lax.stop_gradient((sums, maxima))

    return loss


def supervised_loss(
    log_probs: Array, entropy: Array, batch: TrainBatch
) -> tuple[Array, Diagnostics]:
    """Cross-entropy of the demonstrations: -sum(weight * log_prob)."""
    counted = batch.loss_weights > 0
    sums = {
        "tokens": counted.sum().astype(jnp.float32),
        "policy/entropy": jnp.where(counted, entropy, 0).sum(),
    }
    return -(batch.loss_weights * log_probs).sum(), (sums, {})


def init_state(
    params: transformer.Params, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Returns the state before the first update; moments lie as weights do."""
    shardings = sharding.optimizer_shardings(mesh, optimizer, params)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(params)

    def zero() -> Array:  # one array each: the update gives both away
        return jax.device_put(np.int32(0), sharding.replicated(mesh))

    return TrainState(params, opt_state, step=zero(), updates=zero())


def abstract_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Returns shapes, dtypes and shardings of what `init_state` makes.

    Args:
      params: shapes, dtypes and shardings of the weights.
      optimizer: makes the rest.
      mesh: the devices.
    """
    scalar = jax.ShapeDtypeStruct((), np.int32, sharding=sharding.replicated(mesh))
    opt_state = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(optimizer.init, params),
        sharding.optimizer_shardings(mesh, optimizer, params),
    )
    return TrainState(params, opt_state, step=scalar, updates=scalar)


def shardings_of(state: TrainState) -> TrainState:
    """Returns the shardings of a state, or of what `abstract_state` gives."""
    return jax.tree.map(lambda x: x.sharding, state)


def _scatter(
    values: Float[Array, "B C"], columns: Int[Array, "B C"], width: int
) -> Float[Array, "B T"]:
    """Puts values at their columns of rows of `width`; columns past it are dropped."""

    def one(values_C: Array, columns_C: Array) -> Array:
        return jnp.zeros(width, values.dtype).at[columns_C].set(values_C, mode="drop")

    return jax.vmap(one)(values, columns)


def _join(split: Float[Array, "M b T"]) -> Float[Array, "B T"]:
    """Undoes `Scorer.split`."""
    count, rows, width = split.shape
    return split.swapaxes(0, 1).reshape(rows * count, width)
