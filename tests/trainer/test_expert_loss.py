"""Tokens of experts in the loss: their ratio is to what the expert gave them."""

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.choices import Loss
from grpo_jax.config import ExpertsConfig, ObjectiveConfig
from grpo_jax.records import Origin, TrainBatch
from grpo_jax.trainer.step import grpo_loss

ROWS, COLUMNS = 3, 6
EXPERT = 1  # the row that an expert wrote
SHOWN = 4  # its column that it was shown
ADVANTAGES = np.array([-0.7, 1.5, 0.4], np.float32)
LOSSES = {
    Loss.GRPO: ObjectiveConfig(),
    Loss.DAPO: ObjectiveConfig(loss=Loss.DAPO),
    Loss.GSPO: ObjectiveConfig(loss=Loss.GSPO),
    Loss.CISPO: ObjectiveConfig(loss=Loss.CISPO, clip_high=1.3),
    Loss.SAPO: ObjectiveConfig(loss=Loss.SAPO),
}


def batch_of(*, old=False, reference=False, seed=0):
    """A column of prompt, then tokens; log-probs of the policy, and the batch."""
    rng = np.random.default_rng(seed)
    log_probs, behavior, *more = rng.normal(-1, 0.3, (4, ROWS, COLUMNS)).astype(
        np.float32
    )
    origins = np.full((ROWS, COLUMNS), Origin.SAMPLED, np.uint8)
    origins[:, 0] = Origin.PROMPT
    origins[EXPERT, 1:] = Origin.EXPERT
    origins[EXPERT, SHOWN] = Origin.OBSERVATION
    trained = np.isin(origins, (Origin.SAMPLED, Origin.EXPERT))
    return log_probs, TrainBatch(
        tokens=np.zeros((ROWS, COLUMNS), np.int32),
        origins=origins,
        prompt_lengths=np.ones(ROWS, np.int32),
        advantages=ADVANTAGES,
        loss_weights=np.where(trained, np.float32(0.1), np.float32(0)),
        behavior_log_probs=behavior,
        old_log_probs=more[0] if old else None,
        reference_log_probs=more[1] if reference else None,
    )


def losses(config, loss="importance"):
    experts = ExpertsConfig(below=1.0, loss=choices.ExpertLoss(loss))
    made = grpo_loss(config, experts=experts)
    return jax.jit(lambda log_probs, batch: made(log_probs, 0 * log_probs, batch))


def surrogate(loss, log_probs, old, advantage, value):
    """Of the tokens of a row, in float64; `value`: in its own, to differentiate."""
    ratio = np.exp(log_probs - old)
    match loss:
        case Loss.GSPO:
            ratio = np.full_like(ratio, np.exp((log_probs - old).mean()))
        case Loss.CISPO:
            held = np.minimum(np.exp(value - old), 1.3)
            return -held * advantage * log_probs
        case Loss.SAPO:
            tau = 1.0 if advantage > 0 else 1.05
            return -4 / tau / (1 + np.exp(-tau * (ratio - 1))) * advantage
    return -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)


@pytest.mark.parametrize("several", [False, True], ids=["one update", "several"])
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient(loss, several):
    log_probs, batch = batch_of(old=several)
    value = np.float64(log_probs)

    def expected(log_probs, detached=value):
        total = 0.0
        for row in range(ROWS):
            counted = batch.loss_weights[row] != 0
            old = batch.old_log_probs[row] if several else value[row]
            if row == EXPERT:
                old = batch.behavior_log_probs[row]
            said, old = log_probs[row][counted], np.float64(old[counted])
            terms = surrogate(
                loss, said, old, float(ADVANTAGES[row]), detached[row][counted]
            )
            total += 0.1 * terms.sum()
        return total

    both = jax.value_and_grad(losses(LOSSES[loss]), has_aux=True)
    (got, _), gradient = both(log_probs, batch)
    assert got == pytest.approx(expected(value), rel=1e-5)
    step = 1e-6
    for row in range(ROWS):
        for column in range(COLUMNS):
            change = np.zeros_like(value)
            change[row, column] = step
            slope = (expected(value + change) - expected(value - change)) / (2 * step)
            assert gradient[row, column] == pytest.approx(slope, abs=2e-5)
    shown = gradient[EXPERT, [0, SHOWN]]
    assert not np.asarray(shown).any() and np.abs(gradient[EXPERT]).max() > 1e-3


def test_a_token_likelier_than_the_expert_had_it_is_left_alone():
    """Its ratio is bounded above, so that imitation ends by itself."""
    log_probs, batch = batch_of()
    behavior = batch.behavior_log_probs.copy()
    behavior[EXPERT] = log_probs[EXPERT] + np.array([0, -0.3, -0.1, 0.1, 0, 0.3])
    batch = batch.replace(behavior_log_probs=behavior)
    gradient, (sums, maxima, minima) = jax.grad(
        losses(ObjectiveConfig()), has_aux=True
    )(log_probs, batch)
    ratio = np.exp(np.float64([0.1, -0.1, -0.3]))
    np.testing.assert_allclose(
        gradient[EXPERT, [1, 2, 3, 5]], [0, *(-0.1 * 1.5 * ratio)], rtol=1e-5
    )
    total, count = sums["expert/ratio_mean"]
    assert count == 4
    assert total == pytest.approx(np.exp(0.3) + ratio.sum(), rel=1e-5)
    assert sums["expert/clip_fraction"].tolist() == [1, 4]
    # Of the policy's own tokens every ratio is 1, and none is clipped.
    assert maxima["policy/ratio_max"] == minima["policy/ratio_min"] == 1
    assert sums["policy/clip_fraction"].tolist() == [0, 10]


@pytest.mark.parametrize("loss", choices.ExpertLoss)
def test_the_gap_of_the_sampler_is_of_what_it_sampled(loss):
    log_probs, batch = batch_of(old=True)
    behavior = batch.behavior_log_probs.copy()
    behavior[EXPERT] -= 50
    program = losses(ObjectiveConfig(), loss.value)
    _, (sums, maxima, _) = program(log_probs, batch)
    _, (far, far_maxima, _) = program(
        log_probs, batch.replace(behavior_log_probs=behavior)
    )
    for name in ("mean", "p99", "max"):
        name = f"policy/sampler_gap_{name}"
        parts = (far, sums) if name in sums else (far_maxima, maxima)
        np.testing.assert_array_equal(*(part[name] for part in parts))
    gap = np.abs(batch.old_log_probs - batch.behavior_log_probs)
    sampled = batch.origins == Origin.SAMPLED
    assert maxima["policy/sampler_gap_max"] == pytest.approx(gap[sampled].max())


def test_experts_are_no_estimate_of_the_distance_from_the_reference():
    log_probs, batch = batch_of(reference=True)
    objective = ObjectiveConfig(kl_coef=0.5)
    both = jax.value_and_grad(losses(objective), has_aux=True)
    (value, _), gradient = both(log_probs, batch)
    (without, _), plain = jax.value_and_grad(losses(ObjectiveConfig()), has_aux=True)(
        log_probs, batch
    )
    np.testing.assert_array_equal(gradient[EXPERT], plain[EXPERT])
    distance = np.float64(batch.reference_log_probs) - log_probs
    k3 = np.exp(distance) - distance - 1
    sampled = batch.origins == Origin.SAMPLED
    added = 0.5 * 0.1 * k3[sampled].sum()
    assert value - without == pytest.approx(added, rel=1e-4)


def test_what_the_policy_would_have_given_them_leaves_the_plain_loss():
    """With log-probs of its own for the expert's, importance is `on_policy`."""
    log_probs, batch = batch_of()
    batch = batch.replace(behavior_log_probs=log_probs)
    results = [
        jax.value_and_grad(losses(ObjectiveConfig(), loss), has_aux=True)(
            log_probs, batch
        )
        for loss in ("importance", "on_policy")
    ]
    ((value, _), gradient), ((plain, _), plain_gradient) = results
    assert value == plain
    np.testing.assert_array_equal(gradient, plain_gradient)
