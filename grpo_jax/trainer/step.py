"""The jitted update: score rows, differentiate the loss, move the weights.

An update goes through its micro-batches one by one, from the host, because they differ
in shape; gradients accumulate in float32 on the devices. Every token's weight in the
loss is normalised before the batch is sliced (`TrainBatch.loss_weights`), so slices add
up to the same loss however many there are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from grpo_jax import choices
from grpo_jax.config import ExpertsConfig, GuidanceConfig, ObjectiveConfig
from grpo_jax.objective import divergences, losses, masked, weights
from grpo_jax.policy import sharding, transformer
from grpo_jax.records import Origin, TrainBatch, TrainState
from grpo_jax.trainer.scorer import Scorer

# Of one micro-batch: (sum, number of entries) of what is averaged, maxima, minima.
Diagnostics = tuple[dict[str, Array], dict[str, Array], dict[str, Array]]
Loss = Callable[[Array, Array, TrainBatch], tuple[Array, Diagnostics]]


class Carry(struct.PyTreeNode):
    """What the micro-batches of an update add up to. Also holds its shardings.

    Attributes:
      gradients: float32, sharded as the weights are.
      loss: of the micro-batches so far.
      sums: of the diagnostics, and how many entries they have, by name.
      maxima: of the diagnostics, by name; none is below 0.
      minima: of the diagnostics, by name.
    """

    gradients: PyTree
    loss: PyTree
    sums: PyTree
    maxima: PyTree
    minima: PyTree


class Update:
    """One optimizer update, as programs that compile once for each shape of rows.

        params = cast(state.params)
        carry = start(micros[0])
        for micro in micros:
            carry = accumulate(params, carry, micro)
        state, metrics = apply(state, carry)

    Calling the object does this. Nothing in it waits for the devices.

    Attributes:
      cast: master weights -> weights in the compute dtype; no copy in float32.
      score: (params, tokens, prompt_lengths) -> log-probs, without gradient.
      start: micro-batch -> a carry of zeros, of what the loss reports of such rows.
      accumulate: (params, carry, micro-batch) -> carry; the old one is given away.
      apply: (state, carry) -> (state, metrics); the old state is given away. A loss or
        a gradient that is not finite leaves the state as it was, and says so in
        `optimizer/skipped`.
    """

    def __init__(
        self,
        scorer: Scorer,
        loss: Loss,
        optimizer: optax.GradientTransformation,
        schedule: optax.Schedule,
        abstract: TrainState,
    ):
        """Prepares the programs; `abstract` is the state as `abstract_state` gives."""
        mesh = scorer.mesh
        shardings = sharding.param_shardings(mesh, abstract.params)
        scalar = sharding.replicated(mesh)
        carry = Carry(shardings, scalar, sums=scalar, maxima=scalar, minima=scalar)
        self.cast: Any = lambda params: params
        if scorer.dtype is not choices.Dtype.FLOAT32:
            self.cast = jax.jit(
                lambda params: transformer.cast(params, scorer.dtype),
                out_shardings=shardings,
            )
        self.score = jax.jit(
            lambda *rows: scorer.log_probs(*rows)[0],
            out_shardings=sharding.row_sharding(mesh),
        )
        self.start = jax.jit(_make_start(loss, abstract.params), out_shardings=carry)
        self.accumulate = jax.jit(
            _make_accumulate(scorer, loss), donate_argnums=1, out_shardings=carry
        )
        self.apply = jax.jit(
            _make_apply(optimizer, schedule),
            donate_argnums=0,
            out_shardings=(shardings_of(abstract), None),
        )

    def __call__(
        self, state: TrainState, micros: Sequence[TrainBatch]
    ) -> tuple[TrainState, dict[str, Array]]:
        """Returns the state after the update, and its metrics, still on the devices.

        Args:
          state: given away.
          micros: slices of one batch, on the devices.
        """
        params, carry = self.cast(state.params), self.start(micros[0])
        for micro in micros:
            carry = self.accumulate(params, carry, micro)
        del params  # the cast copy need not outlive the gradients
        return self.apply(state, carry)


def _make_start(loss: Loss, abstract_params: Any) -> Callable[[TrainBatch], Carry]:
    def start(micro: TrainBatch) -> Carry:
        values = micro.loss_weights
        total, diagnostics = jax.eval_shape(loss, values, values, micro)
        shapes = Carry(abstract_params, total, *diagnostics)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
        return zeros.replace(minima=jax.tree.map(lambda x: x + jnp.inf, zeros.minima))

    return start


def _make_accumulate(
    scorer: Scorer, loss: Loss
) -> Callable[[Any, Carry, TrainBatch], Carry]:
    def micro_loss(params: Any, micro: TrainBatch) -> tuple[Array, Diagnostics]:
        scores = scorer.log_probs(params, micro.tokens, micro.prompt_lengths)
        return loss(*scores, micro)

    def accumulate(params: Any, carry: Carry, micro: TrainBatch) -> Carry:
        differentiate = jax.value_and_grad(micro_loss, has_aux=True)
        (value, diagnostics), gradients = differentiate(params, micro)
        sums, maxima, minima = diagnostics
        return Carry(
            gradients=jax.tree.map(
                lambda total, new: total + new.astype(jnp.float32),
                carry.gradients,
                gradients,
            ),
            loss=carry.loss + value,
            sums=jax.tree.map(jnp.add, carry.sums, sums),
            maxima=jax.tree.map(jnp.maximum, carry.maxima, maxima),
            minima=jax.tree.map(jnp.minimum, carry.minima, minima),
        )

    return accumulate


def _make_apply(
    optimizer: optax.GradientTransformation, schedule: optax.Schedule
) -> Callable[[TrainState, Carry], tuple[TrainState, dict[str, Array]]]:
    def apply(state: TrainState, carry: Carry) -> tuple[TrainState, dict[str, Array]]:
        norm = optax.tree.norm(carry.gradients)
        finite = jnp.isfinite(carry.loss) & jnp.isfinite(norm)

        def move(state: TrainState) -> TrainState:
            changes, opt_state = optimizer.update(
                carry.gradients, state.opt_state, state.params
            )
            return state.replace(
                params=optax.apply_updates(state.params, changes),
                opt_state=opt_state,
                updates=state.updates + 1,
            )

        # Choosing between the new and the old state leaf by leaf would hold both.
        new_state = jax.lax.cond(finite, move, lambda state: state, state)
        metrics = {
            "loss/total": carry.loss,
            "optimizer/gradient_norm": norm,
            "optimizer/learning_rate": jnp.asarray(schedule(state.updates)),
            "optimizer/skipped": 1.0 - finite,
            # Of no entries there is no mean.
            **{name: total / count for name, (total, count) in carry.sums.items()},
            **carry.maxima,
            **carry.minima,
        }
        return new_state, metrics

    return apply


def grpo_loss(
    config: ObjectiveConfig,
    guidance: GuidanceConfig | None = None,
    experts: ExpertsConfig | None = None,
) -> Loss:
    """Returns the policy-gradient loss of a configuration.

    Args:
      config: the loss.
      guidance: how guidance tokens count; None where there are none.
      experts: how rows of experts count; None where there are none. Never both.
    """
    off_policy_origins: tuple[Origin, ...] = ()
    shaping_gamma = 1.0
    if guidance is not None:
        off_policy_origins = weights.guidance_origins(guidance.loss)[1]
        shaping_gamma = guidance.shaping_gamma
    if experts is not None:
        off_policy_origins = weights.expert_origins(experts.loss)[1]
        shaping_gamma = experts.shaping_gamma
    importance = experts is not None and experts.loss is choices.ExpertLoss.IMPORTANCE

    def loss(
        log_probs: Array, entropy: Array, batch: TrainBatch
    ) -> tuple[Array, Diagnostics]:
        off_policy = None
        if off_policy_origins:
            off_policy = weights.loss_mask(batch.origins, trained=off_policy_origins)
        measured = _against_experts(log_probs, batch) if importance else batch
        value, seen = losses.policy_loss(
            log_probs,
            measured.old_log_probs,
            measured.reference_log_probs,
            batch.advantages,
            batch.loss_weights,
            loss=config.loss,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            dual_clip=config.dual_clip,
            kl_coef=config.kl_coef,
            divergence=config.divergence,
            off_policy=off_policy,
            shaping_gamma=shaping_gamma,
        )
        counted = batch.loss_weights != 0
        sampled = counted & (batch.origins == Origin.SAMPLED)
        # Against what the trainer said when the rollout was taken: how far the two
        # programs are apart, whatever has been learned since.
        old = log_probs if batch.old_log_probs is None else batch.old_log_probs
        gap = jnp.where(sampled, jnp.abs(old - batch.behavior_log_probs), 0)
        sums = {
            "policy/entropy": _mean(entropy, sampled),
            "policy/clip_fraction": _mean(seen.clipped, sampled),
            "policy/sampler_gap_mean": _mean(gap, sampled),
        }
        expert = counted & (batch.origins == Origin.EXPERT)
        ratio = jnp.where(expert, 1, seen.importance_ratio)
        # Quantiles are of micro-batches: the largest is at least that of all rows.
        maxima = {
            "policy/ratio_max": ratio.max(),
            "policy/ratio_p99": masked.quantile(ratio, sampled, 0.99),
            "policy/sampler_gap_p99": masked.quantile(gap, sampled, 0.99),
            "policy/sampler_gap_max": gap.max(),
        }
        minima = {"policy/ratio_min": ratio.min()}
        if config.kl_coef:
            sums["loss/kl"] = _mean(seen.kl, sampled)
            maxima["loss/kl_p95"] = masked.quantile(seen.kl, sampled, 0.95)
            maxima["loss/kl_max"] = seen.kl.max()
        if experts is not None:
            sums["expert/nll"] = _mean(-log_probs, expert)
        if importance:
            sums["expert/ratio_mean"] = _mean(seen.importance_ratio, expert)
            sums["expert/clip_fraction"] = _mean(seen.clipped, expert)
        if guidance is not None:
            given = batch.origins == Origin.GUIDANCE
            sums["guidance/nll"] = _mean(-log_probs, given)
            sums["guidance/entropy"] = _mean(entropy, given)
            sums["guidance/clip_fraction"] = _mean(seen.clipped, given)
            if batch.reference_log_probs is not None:
                kl = divergences.divergence(
                    log_probs, batch.reference_log_probs, kind=config.divergence
                )
                sums["guidance/kl"] = _mean(kl, given)
        return value, jax.lax.stop_gradient((sums, maxima, minima))

    return loss


def _against_experts(log_probs: Array, batch: TrainBatch) -> TrainBatch:
    """Returns a batch whose old log-probs of experts' tokens are the experts' own."""
    current, expert = jax.lax.stop_gradient(log_probs), batch.origins == Origin.EXPERT
    old, reference = batch.old_log_probs, batch.reference_log_probs
    old = jnp.where(expert, batch.behavior_log_probs, current if old is None else old)
    if reference is not None:  # KL is estimated from what the policy draws
        reference = jnp.where(expert, current, reference)
    return batch.replace(old_log_probs=old, reference_log_probs=reference)


def _mean(values: Array, mask: Array) -> Array:
    """Returns (sum, number of entries) of what a mask selects."""
    pair = jnp.where(mask, values, 0).sum(), mask.sum()
    return jnp.stack([each.astype(jnp.float32) for each in pair])


def supervised_loss(
    log_probs: Array, entropy: Array, batch: TrainBatch
) -> tuple[Array, Diagnostics]:
    """Cross-entropy of the demonstrations: -sum(weight * log_prob)."""
    sums = {"policy/entropy": _mean(entropy, batch.loss_weights > 0)}
    return -(batch.loss_weights * log_probs).sum(), (sums, {}, {})


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
