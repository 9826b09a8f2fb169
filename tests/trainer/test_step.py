import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from grpo_jax import choices
from grpo_jax.choices import GuidanceLoss
from grpo_jax.config import GuidanceConfig, ObjectiveConfig, OptimizerConfig
from grpo_jax.policy import sharding, transformer
from grpo_jax.records import Origin, TrainBatch
from grpo_jax.rollout import session
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer.optimizer import make_optimizer, make_schedule
from grpo_jax.trainer.scorer import Scorer
from grpo_jax.trainer.step import (
    Update,
    abstract_state,
    grpo_loss,
    init_state,
    supervised_loss,
)
from tests import helpers

ARCH = helpers.TINY
MESH = helpers.one_device_mesh()
ROWS, COLUMNS, COMPLETION = 8, 24, 16
TEMPERATURE = 0.7
# Epsilon keeps Adam's first step from being the sign of a rounding error.
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2,
    epsilon=1e-2,
    weight_decay=0.1,
    schedule=choices.Schedule.LINEAR,
    max_gradient_norm=0.0,
)


def scorer_of(**changes):
    options = dict(
        arch=ARCH,
        mesh=MESH,
        dtype=choices.Dtype.FLOAT32,
        remat=choices.Remat.NONE,
        attention=choices.Attention.XLA,
        temperature=TEMPERATURE,
        completion_columns=COMPLETION,
        chunk_tokens=40,
    )
    return Scorer(**{**options, **changes})


def batch_of(objective=ObjectiveConfig(), seed=0):  # noqa: B008
    """Rows of prompts 1 to 8 and completions 1 to 16, of mixed origins."""
    rng = np.random.default_rng(seed)
    prompts = np.arange(1, ROWS + 1, dtype=np.int32)
    completions = np.array([16, 1, 5, 9, 3, 16, 12, 7], np.int32)
    columns = np.arange(COLUMNS)[None]
    origins = np.full((ROWS, COLUMNS), Origin.SAMPLED, np.uint8)
    origins[2, 3:5] = Origin.GUIDANCE
    origins[5, 9:12] = Origin.OBSERVATION
    origins[columns < prompts[:, None]] = Origin.PROMPT
    origins[columns >= (prompts + completions)[:, None]] = Origin.PAD
    log_probs = rng.normal(-2.5, 0.5, (3, ROWS, COLUMNS)).astype(np.float32)
    return TrainBatch(
        tokens=rng.integers(4, ARCH.vocab_size, (ROWS, COLUMNS)).astype(np.int32),
        origins=origins,
        prompt_lengths=prompts,
        advantages=rng.normal(size=ROWS).astype(np.float32),
        loss_weights=np.asarray(
            batches._loss_weights(
                origins,
                np.ones(ROWS, bool),
                loss=objective.loss,
                aggregation=objective.aggregation,
                max_completion_tokens=COMPLETION,
            )
        ),
        behavior_log_probs=log_probs[0],
        old_log_probs=log_probs[1],
        reference_log_probs=log_probs[2],
    )


@pytest.fixture(scope="module")
def params():
    return helpers.params_of(ARCH)


@pytest.fixture(scope="module")
def naive(params):
    """Log-probs of every token but the first, from all the logits at once."""

    @jax.jit
    def score(tokens, temperature):
        hidden = transformer.forward(params, ARCH, tokens)
        scores = jax.nn.log_softmax(transformer.logits(params, hidden) / temperature)
        picked = jnp.take_along_axis(scores[:, :-1], tokens[:, 1:, None], axis=2)
        entropy = -(jnp.exp(scores) * scores).sum(-1)[:, :-1]
        pad = ((0, 0), (1, 0))
        return jnp.pad(picked[..., 0], pad), jnp.pad(entropy, pad)

    return lambda tokens, temperature: jax.device_get(score(tokens, temperature))


def log_probs_of(scorer, params, batch):
    score = jax.jit(scorer.log_probs)
    return jax.device_get(score(params, batch.tokens, batch.prompt_lengths))


def cut(batch, tokens):
    """Micro-batches of a number of slots."""
    return batches.micro_batches(
        batch, widest=COLUMNS, budget_tokens=tokens, row_shards=1
    )


def to_float(metrics):
    return {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def compiled(params):
    """Compiled updates, one for each set of options."""
    programs = {}

    def build(objective, loss, changes):
        name = f"{objective} {loss} {changes}"
        if name not in programs:
            schedule = make_schedule(OPTIMIZER, 10)
            optimizer = make_optimizer(OPTIMIZER, schedule)
            abstract = abstract_state(helpers.abstract_like(params), optimizer, MESH)
            loss = loss or grpo_loss(objective)
            update = Update(scorer_of(**changes), loss, optimizer, schedule, abstract)
            programs[name] = (optimizer, update)
        return programs[name]

    return build


@pytest.fixture
def update_of(params, compiled):
    """One update from the same start: the new state and the metrics, on the host.

    In one piece as the batch lies, or cut into micro-batches of `micro_tokens`.
    """

    def run(
        batch,
        objective=ObjectiveConfig(),  # noqa: B008
        loss=None,
        micro_tokens=0,
        **changes,
    ):
        optimizer, update = compiled(objective, loss, changes)
        state = init_state(jax.tree.map(jnp.copy, params), optimizer, MESH)
        micros = cut(batch, micro_tokens) if micro_tokens else [batch]
        state, metrics = jax.device_get(update(state, micros))
        return state, to_float(metrics)

    return run


@pytest.fixture
def gradient_of(update_of):
    """The gradient of the loss, which Adam's first moment is a tenth of."""

    def run(batch, objective=ObjectiveConfig(), **options):  # noqa: B008
        state, metrics = update_of(batch, objective, **options)
        mu = optax.tree_utils.tree_get(state.opt_state, "mu")
        return jax.tree.map(lambda x: x / np.float32(0.1), mu), metrics

    return run


def assert_close(got, expected, atol):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), got, expected
    )


def assert_same(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def is_completion(batch, width=COMPLETION):
    columns = np.arange(batch.tokens.shape[1])[None] - batch.prompt_lengths[:, None]
    return (columns >= 0) & (columns < width)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("chunk_tokens", [1, 40, 10_000])
def test_log_probs_are_those_of_all_logits(params, naive, temperature, chunk_tokens):
    batch = batch_of()
    scorer = scorer_of(temperature=temperature, chunk_tokens=chunk_tokens)
    log_probs, entropy = log_probs_of(scorer, params, batch)
    expected, expected_entropy = naive(batch.tokens, temperature)
    inside = is_completion(batch)
    np.testing.assert_allclose(log_probs[inside], expected[inside], atol=2e-5)
    np.testing.assert_allclose(entropy[inside], expected_entropy[inside], atol=2e-5)
    assert (log_probs[~inside] == 0).all() and (entropy[~inside] == 0).all()
    assert np.abs(expected[inside]).max() > 3


def test_a_shorter_completion_limit_scores_fewer_columns(params, naive):
    batch = batch_of()
    log_probs, _ = log_probs_of(scorer_of(completion_columns=3), params, batch)
    inside = is_completion(batch, 3)
    np.testing.assert_allclose(
        log_probs[inside], naive(batch.tokens, TEMPERATURE)[0][inside], atol=2e-5
    )
    assert (log_probs[~inside] == 0).all()


def test_a_limit_beyond_the_row_changes_nothing(params):
    batch = batch_of()
    scored = [
        log_probs_of(scorer_of(completion_columns=n), params, batch)[0]
        for n in (COLUMNS - 1, 500)
    ]
    assert_same(*scored)


def test_what_padding_holds_changes_no_log_prob(params):
    batch = batch_of()
    padding = batch.origins == Origin.PAD
    other = batch.replace(tokens=np.where(padding, 7, batch.tokens))
    scorer = scorer_of()
    first, second = (log_probs_of(scorer, params, b)[0] for b in (batch, other))
    np.testing.assert_array_equal(first[~padding], second[~padding])
    assert (first != second).any()


@pytest.mark.parametrize("temperature", [0.5, 0.7, 1.0])
def test_the_trainer_scores_what_the_sampler_drew_from(params, temperature):
    trajectories = session.complete(
        helpers.setup_of(ARCH),
        helpers.view_of(ARCH, params),
        helpers.requests_of(16, ARCH.vocab_size),
        sampling=Sampling(temperature),
        key=jax.random.key(3),
    )[0]
    batch = batches.make_batch(
        trajectories, np.ones(16), np.ones(16, np.float32), ObjectiveConfig(), 20
    )
    sampled = batch.origins == Origin.SAMPLED
    assert sampled.sum() > 100 and len(set(batch.prompt_lengths)) > 1

    def gap(scored_at):
        scorer = scorer_of(temperature=scored_at, completion_columns=20)
        log_probs, _ = log_probs_of(scorer, params, batch)
        return np.abs(log_probs - batch.behavior_log_probs)[sampled].max()

    assert gap(temperature) < 1e-4
    if temperature == 0.5:
        assert gap(1.0) > 0.1


def test_micro_batches_are_scored_as_the_batch_is(params, compiled):
    batch = batch_of()
    expected, _ = log_probs_of(scorer_of(), params, batch)
    _, update = compiled(ObjectiveConfig(), None, {})
    scores = [
        update.score(params, micro.tokens, micro.prompt_lengths)
        for micro in cut(batch, 48)
    ]
    assert len({part.shape for part in scores}) > 2
    got = batches.in_order(batch, jax.device_get(scores))
    real = batch.origins != Origin.PAD
    np.testing.assert_allclose(got[real], expected[real], atol=1e-5)


def test_the_gradient_is_that_of_the_naive_loss(params, gradient_of):
    batch = batch_of()

    def loss(params):
        hidden = transformer.forward(params, ARCH, jnp.asarray(batch.tokens))
        scores = jax.nn.log_softmax(transformer.logits(params, hidden) / TEMPERATURE)
        picked = jnp.take_along_axis(scores[:, :-1], batch.tokens[:, 1:, None], axis=2)
        ratio = jnp.exp(picked[..., 0] - batch.old_log_probs[:, 1:])
        gain = ratio * batch.advantages[:, None]
        held = jnp.clip(ratio, 0.8, 1.2) * batch.advantages[:, None]
        return -(batch.loss_weights[:, 1:] * jnp.minimum(gain, held)).sum()

    value, expected = jax.jit(jax.value_and_grad(loss))(params)
    got, metrics = gradient_of(batch, micro_tokens=100)
    assert metrics["loss/total"] == pytest.approx(float(value), abs=1e-6)
    assert_close(got, expected, 3e-6)
    norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(expected)))
    assert metrics["optimizer/gradient_norm"] == pytest.approx(float(norm), rel=1e-5)


def test_what_is_outside_the_loss_has_exactly_no_effect(gradient_of):
    batch = batch_of()
    out = batch.loss_weights == 0
    junk = batch.replace(
        tokens=np.where(batch.origins == Origin.PAD, 9, batch.tokens),
        behavior_log_probs=np.where(out, 50, batch.behavior_log_probs),
        old_log_probs=np.where(out, -np.inf, batch.old_log_probs),
        reference_log_probs=np.where(out, np.nan, batch.reference_log_probs),
    )
    objective = ObjectiveConfig(kl_coef=0.1)
    clean, junk = (gradient_of(b, objective) for b in (batch, junk))
    assert_same(junk, clean)
    assert clean[1]["optimizer/gradient_norm"] > 0


def test_a_row_reads_nothing_behind_its_last_trained_token(gradient_of):
    """Only row 1, of one completion token, is trained: later tokens are not seen."""
    batch = batch_of()
    weights = np.zeros_like(batch.loss_weights)
    weights[1, 2] = 1.0
    batch = batch.replace(loss_weights=weights)
    tokens = batch.tokens.copy()
    tokens[1, 3:] = 5
    tokens[0] = 6
    first, _ = gradient_of(batch)
    second, _ = gradient_of(batch.replace(tokens=tokens))
    assert_same(first, second)
    # The embedding moves as the tied head, and where the row's first tokens are read.
    tokens[1, 0] = (batch.tokens[1, 0] + 1) % ARCH.vocab_size
    third, _ = gradient_of(batch.replace(tokens=tokens))
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), first, third)
    assert max(jax.tree.leaves(difference)) > 1e-4


@pytest.mark.system
@pytest.mark.parametrize(
    "objective",
    [
        ObjectiveConfig(),
        ObjectiveConfig(loss=choices.Loss.GSPO, clip_low=3e-4, clip_high=4e-4),
        pytest.param(
            ObjectiveConfig(
                loss=choices.Loss.DAPO, kl_coef=0.1, divergence=choices.Divergence.K2
            ),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ObjectiveConfig(loss=choices.Loss.DR_GRPO), marks=pytest.mark.slow
        ),
        pytest.param(
            ObjectiveConfig(loss=choices.Loss.CISPO, clip_high=5.0),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda objective: objective.loss.value,
)
def test_micro_batches_change_nothing(update_of, objective):
    batch = batch_of(objective)
    state, metrics = update_of(batch, objective)
    assert metrics["policy/clip_fraction"] > 0
    # Down to a row each, up to all in one that is mostly padding.
    for tokens in (1, 100, 500):
        other, others = update_of(batch, objective, micro_tokens=tokens)
        if objective.kl_coef:  # the largest of the micro-batches'
            p95 = metrics["loss/kl_p95"]
            assert others.pop("loss/kl_p95") >= p95 * (1 - 1e-5)
            others["loss/kl_p95"] = p95
        assert others == pytest.approx(metrics, abs=1e-6, rel=1e-5)
        assert_close(other.params, state.params, 1e-6)
        assert_close(other.opt_state, state.opt_state, 1e-6)


def test_recomputing_changes_nothing(update_of):
    batch = batch_of()
    stored, metrics = update_of(batch)
    again, others = update_of(batch, remat=choices.Remat.FULL)
    assert_close(again.params, stored.params, 1e-6)
    assert others == pytest.approx(metrics, abs=1e-6, rel=1e-5)


def test_half_precision_keeps_float32_weights_and_moments(update_of):
    batch = batch_of()
    _, metrics = update_of(batch)
    state, others = update_of(batch, dtype=choices.Dtype.BFLOAT16)
    kinds = {str(x.dtype) for x in jax.tree.leaves((state.params, state.opt_state))}
    assert kinds == {"float32", "int32"}
    norms = [m["optimizer/gradient_norm"] for m in (metrics, others)]
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_an_update_that_is_not_finite_changes_nothing(params, compiled):
    batch = batch_of()
    optimizer, update = compiled(ObjectiveConfig(), None, {})

    def copy(tree):
        return jax.tree.map(jnp.copy, tree)

    start, metrics = update(init_state(copy(params), optimizer, MESH), cut(batch, 60))
    assert metrics["optimizer/skipped"] == 0 and start.updates == 1
    after = copy(start)
    # With the last one the loss is finite, and the norm of the gradient is not.
    for bad in (np.inf, np.nan, 1e30):
        advantages = batch.advantages.copy()
        advantages[3] = bad
        micros = cut(batch.replace(advantages=advantages), 60)
        after, metrics = update(after, micros)
        assert metrics["optimizer/skipped"] == 1
        assert np.isfinite(metrics["loss/total"]) == (bad == 1e30)
        assert not np.isfinite(metrics["optimizer/gradient_norm"])
        assert_same(jax.device_get(after), jax.device_get(start))
    # As if nothing had happened: the next good update is the second one.
    after, metrics = update(after, cut(batch, 60))
    assert after.updates == 2 and metrics["optimizer/skipped"] == 0
    assert metrics["optimizer/learning_rate"] == pytest.approx(9e-3)
    expected, _ = update(start, cut(batch, 60))
    assert_same(jax.device_get(after), jax.device_get(expected))


def test_kl_adds_its_weighted_k3_estimate(update_of, naive):
    batch = batch_of()
    log_probs = naive(batch.tokens, TEMPERATURE)[0]
    distance = np.float64(batch.reference_log_probs) - log_probs
    k3 = np.where(batch.loss_weights != 0, np.exp(distance) - distance - 1, 0)
    _, without = update_of(batch)
    _, metrics = update_of(batch, ObjectiveConfig(kl_coef=0.3))
    added = metrics["loss/total"] - without["loss/total"]
    assert added == pytest.approx(0.3 * (batch.loss_weights * k3).sum(), rel=1e-4)
    assert metrics["loss/kl"] == pytest.approx(
        k3.sum() / (batch.loss_weights != 0).sum(), rel=1e-4
    )
    assert metrics["loss/kl_max"] == pytest.approx(k3.max(), rel=1e-4)
    trained = np.sort(k3[batch.loss_weights != 0])
    p95 = trained[int(np.ceil(0.95 * len(trained))) - 1]
    assert p95 < k3.max()
    assert metrics["loss/kl_p95"] == pytest.approx(p95, rel=1e-4)


def test_metrics_are_means_over_trained_tokens(update_of, naive):
    batch = batch_of()
    log_probs, entropy = naive(batch.tokens, TEMPERATURE)
    counted = batch.loss_weights != 0
    gap = np.abs(batch.old_log_probs - batch.behavior_log_probs)[counted]
    ratio = np.exp(log_probs - batch.old_log_probs)[counted]
    up = np.broadcast_to(batch.advantages[:, None] > 0, counted.shape)[counted]
    _, metrics = update_of(batch, micro_tokens=100)
    expected = {
        "policy/entropy": entropy[counted].mean(),
        "policy/sampler_gap_mean": gap.mean(),
        "policy/sampler_gap_max": gap.max(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_min": ratio.min(),
        "policy/clip_fraction": np.where(up, ratio > 1.2, ratio < 0.8).mean(),
    }
    assert {n: metrics[n] for n in expected} == pytest.approx(expected, rel=1e-4)
    # The largest of the micro-batches', or that of all rows at once.
    _, whole = update_of(batch)
    p99 = np.sort(gap)[int(np.ceil(0.99 * len(gap))) - 1]
    assert whole["policy/sampler_gap_p99"] == pytest.approx(p99, rel=1e-4)
    p99_ratio = np.sort(ratio)[int(np.ceil(0.99 * len(ratio))) - 1]
    assert whole["policy/ratio_p99"] == pytest.approx(p99_ratio, rel=1e-4)
    assert ratio.min() < 1 < p99_ratio <= metrics["policy/ratio_p99"] * (1 + 1e-4)
    assert p99 <= metrics["policy/sampler_gap_p99"] * (1 + 1e-4)


@pytest.mark.system
def test_guidance_has_metrics_of_its_own(update_of, naive):
    batch, guidance = batch_of(), GuidanceConfig(fraction=0.5)
    loss = grpo_loss(ObjectiveConfig(kl_coef=0.1), guidance)
    _, metrics = update_of(batch, loss=loss, micro_tokens=100)
    log_probs, entropy = naive(batch.tokens, TEMPERATURE)
    given = batch.origins == Origin.GUIDANCE
    distance = (batch.reference_log_probs - log_probs)[given]
    expected = {
        "guidance/nll": -log_probs[given].mean(),
        "guidance/entropy": entropy[given].mean(),
        "guidance/kl": (np.exp(distance) - distance - 1).mean(),
        "guidance/clip_fraction": 0,
    }
    assert {n: metrics[n] for n in expected} == pytest.approx(expected, rel=1e-4)
    _, plain = update_of(batch, ObjectiveConfig(kl_coef=0.1), micro_tokens=100)
    assert {n: metrics[n] for n in plain} == plain


@pytest.mark.parametrize("treatment", GuidanceLoss)
def test_guidance_in_the_loss(update_of, naive, treatment):
    """Beside the rest, which stays as it is."""
    batch = batch_of()
    given = batch.origins == Origin.GUIDANCE
    in_loss = treatment is not GuidanceLoss.MASK
    weights = np.where(given & in_loss, np.float32(0.01), batch.loss_weights)
    guidance = GuidanceConfig(fraction=0.5, loss=treatment, shaping_gamma=0.2)
    loss = grpo_loss(ObjectiveConfig(), guidance)
    _, metrics = update_of(batch.replace(loss_weights=weights), loss=loss)
    _, plain = update_of(batch)
    log_probs = np.float64(naive(batch.tokens, TEMPERATURE)[0][given])
    advantages = np.broadcast_to(batch.advantages[:, None], given.shape)[given]
    ratio = np.exp(log_probs - batch.old_log_probs[given])
    clipped = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    shaped = np.exp(log_probs) / (np.exp(log_probs) + 0.2) * advantages
    added = {
        GuidanceLoss.MASK: 0 * shaped,
        GuidanceLoss.INCLUDE: clipped,
        GuidanceLoss.OFF_POLICY: shaped,
    }[treatment]
    difference = metrics["loss/total"] - plain["loss/total"]
    assert difference == pytest.approx(-0.01 * added.sum(), rel=1e-3, abs=1e-6)
    assert metrics["policy/sampler_gap_max"] == plain["policy/sampler_gap_max"]


def test_without_old_log_probs_every_ratio_is_one(update_of):
    batch = batch_of().replace(old_log_probs=None)
    _, metrics = update_of(batch)
    ratios = [metrics[f"policy/ratio_{which}"] for which in ("min", "p99", "max")]
    assert ratios == [1, 1, 1] and metrics["policy/clip_fraction"] == 0


@pytest.mark.system
def test_supervised_loss_is_the_mean_cross_entropy(update_of, naive):
    batch = batch_of()
    origins = np.where(batch.origins == Origin.SAMPLED, Origin.EXPERT, batch.origins)
    origins = origins.astype(np.uint8)
    batch = batch.replace(loss_weights=batches.supervised_weights(origins))
    _, metrics = update_of(batch, loss=supervised_loss, micro_tokens=100)
    expected = -naive(batch.tokens, TEMPERATURE)[0][origins == Origin.EXPERT].mean()
    assert metrics["loss/total"] == pytest.approx(expected, rel=1e-5)


def test_the_state_is_given_away(params, compiled):
    batch = batch_of()
    optimizer, update = compiled(ObjectiveConfig(), None, {})
    state = init_state(jax.tree.map(jnp.copy, params), optimizer, MESH)
    new, _ = update(state, [batch])
    old = jax.tree_util.tree_leaves_with_path(state)
    assert [path for path, leaf in old if not leaf.is_deleted()] == []
    newer, _ = update(new, [batch])
    assert int(newer.updates) == 2 and int(newer.step) == 0


def bytes_of(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def programs_of(arch, mesh=MESH, **changes):
    """The update of a model, and the shapes of its state."""
    weights = jax.eval_shape(lambda: transformer.init(arch, jax.random.key(0)))
    schedule = make_schedule(OPTIMIZER, 10)
    optimizer = make_optimizer(OPTIMIZER, schedule)
    weights = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        weights,
        sharding.param_shardings(mesh, weights),
    )
    state = abstract_state(weights, optimizer, mesh)
    scorer = scorer_of(arch=arch, mesh=mesh, remat=choices.Remat.FULL, **changes)
    loss = grpo_loss(ObjectiveConfig())
    return Update(scorer, loss, optimizer, schedule, state), state


def test_nothing_of_the_size_of_the_weights_is_held_without_need():
    arch = dataclasses.replace(ARCH, feed_forward_dim=512, num_layers=24)
    update, state = programs_of(arch)
    micro = jax.tree.map(jnp.asarray, cut(batch_of(), 48)[0])
    carry = jax.eval_shape(update.start, micro)
    for lowered, given in (
        (update.accumulate.lower(state.params, carry, micro), carry),
        (update.apply.lower(state, carry), state),
    ):
        memory = lowered.compile().memory_analysis()
        # What is given away is overwritten, and one gradient more is held: that of the
        # micro-batch, or the clipped one.
        assert memory.alias_size_in_bytes >= bytes_of(given)
        assert memory.output_size_in_bytes < bytes_of(given) + 1e4
        assert memory.temp_size_in_bytes < 1.4 * bytes_of(state.params)


def test_no_pass_holds_the_logits_of_its_micro_batch():
    arch = dataclasses.replace(ARCH, vocab_size=16_384)
    rows, columns, completion = 8, 120, 100
    shape = jax.ShapeDtypeStruct((rows, columns), jnp.float32)
    micro = TrainBatch(
        tokens=jax.ShapeDtypeStruct(shape.shape, jnp.int32),
        origins=jax.ShapeDtypeStruct(shape.shape, jnp.uint8),
        prompt_lengths=jax.ShapeDtypeStruct((rows,), jnp.int32),
        advantages=jax.ShapeDtypeStruct((rows,), jnp.float32),
        loss_weights=shape,
        behavior_log_probs=shape,
    )

    def temporary(chunk_tokens):
        update, state = programs_of(
            arch, completion_columns=completion, chunk_tokens=chunk_tokens
        )
        carry = jax.eval_shape(update.start, micro)
        lowered = (
            update.accumulate.lower(state.params, carry, micro),
            update.score.lower(state.params, micro.tokens, micro.prompt_lengths),
        )
        return np.array(
            [each.compile().memory_analysis().temp_size_in_bytes for each in lowered]
        )

    logits = rows * completion * arch.vocab_size * 4
    assert (temporary(rows * completion) > logits).all()
    assert (temporary(rows * 5) < 0.5 * logits).all()


@pytest.mark.system
def test_the_head_is_gathered_once_and_its_gradient_summed_once():
    """However many chunks there are, on a mesh that splits the rows and the head."""
    mesh = sharding.make_mesh(2, 2, 2)
    arch = dataclasses.replace(ARCH, vocab_size=2048, num_layers=1, tied_head=False)
    with jax.set_mesh(mesh):
        update, state = programs_of(arch, mesh=mesh, chunk_tokens=4)
        micro = sharding.put_rows(batch_of(), mesh)
        carry = jax.eval_shape(update.start, micro)
        lowered = update.accumulate.lower(state.params, carry, micro)
        moved = helpers.collectives(lowered.compile())
    share = arch.vocab_size // 2 * arch.model_dim // 2  # of a device, of the head
    in_loops = [size for entry, _, size in moved if not entry]
    assert in_loops and max(in_loops) < share // 2
    assert sum(size > share for _, kind, size in moved if kind == "all-gather") == 1


def test_float32_weights_are_not_copied(params, compiled):
    _, update = compiled(ObjectiveConfig(), None, {})
    assert update.cast(params) is params
    _, update = compiled(ObjectiveConfig(), None, {"dtype": choices.Dtype.BFLOAT16})
    assert {x.dtype for x in jax.tree.leaves(update.cast(params))} == {
        np.dtype(jnp.bfloat16)
    }


@pytest.mark.system
def test_each_shape_is_traced_once(params):
    traces = []
    loss = grpo_loss(ObjectiveConfig())

    def counted(log_probs, entropy, batch):
        traces.append(batch.tokens.shape)
        return loss(log_probs, entropy, batch)

    schedule = make_schedule(OPTIMIZER, 10)
    optimizer = make_optimizer(OPTIMIZER, schedule)
    state = init_state(jax.tree.map(jnp.copy, params), optimizer, MESH)
    update = Update(
        scorer_of(), counted, optimizer, schedule, helpers.abstract_like(state)
    )
    for seed in range(3):
        micros = cut(batch_of(seed=seed), 48)
        state, _ = update(state, micros)
    shapes = [micro.tokens.shape for micro in micros]
    assert 1 < len(set(shapes)) < len(shapes)
    # The first one twice: the zeros to start from are of what the loss reports of it.
    assert sorted(traces) == sorted([shapes[0], *set(shapes)])
