"""AdamW with a warm-up and a schedule, float32 throughout."""

import jax
import optax

from grpo_jax import choices
from grpo_jax.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, updates: int) -> optax.Schedule:
    """Returns the learning rate after a number of updates.

    Linear from 0 over `warmup_steps`, then constant, or down to `final_fraction` of the
    peak at `updates`, in a line or along a half cosine.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    decay = max(updates - warmup, 1)
    match config.schedule:
        case choices.Schedule.CONSTANT:
            after = optax.constant_schedule(peak)
        case choices.Schedule.LINEAR:
            after = optax.linear_schedule(peak, config.final_fraction * peak, decay)
        case choices.Schedule.COSINE:
            after = optax.cosine_decay_schedule(peak, decay, config.final_fraction)
    if warmup == 0:
        return after
    rise = optax.linear_schedule(0.0, peak, warmup)
    return optax.join_schedules([rise, after], [warmup])


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Returns gradient clipping by global norm followed by AdamW.

    Weight decay spares norms and biases.
    """

    def decayed(params: optax.Params) -> optax.Params:
        def is_matrix(path: tuple, _: jax.Array) -> bool:
            return path[-1].key in ("kernel", "table")

        return jax.tree.map_with_path(is_matrix, params)

    adamw = optax.adamw(
        schedule,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    if config.max_gradient_norm == 0:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), adamw)
