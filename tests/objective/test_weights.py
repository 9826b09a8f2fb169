import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax.choices import Aggregation, GuidanceLoss, Loss
from grpo_jax.objective.weights import (
    guidance_origins,
    loss_mask,
    loss_weights,
    published_aggregation,
)
from grpo_jax.records import Origin

AGGREGATIONS = [x for x in Aggregation if x is not Aggregation.PUBLISHED]


def weights(mask, aggregation, loss=Loss.GRPO, max_completion_tokens=8):
    return loss_weights(
        jnp.asarray(mask, bool),
        loss=loss,
        aggregation=aggregation,
        max_completion_tokens=max_completion_tokens,
    )


def lengths_mask(lengths, columns=8):
    return np.arange(columns)[None] < np.array(lengths)[:, None]


def test_only_sampled_tokens_are_in_the_loss():
    origins = jnp.array([[int(origin) for origin in Origin]], jnp.uint8)
    expected = [[origin is Origin.SAMPLED for origin in Origin]]
    np.testing.assert_array_equal(loss_mask(origins), expected)


@pytest.mark.parametrize("trained", [(), {Origin.EXPERT}, list(Origin)[2:5]])
def test_trained_names_every_origin_in_the_loss(trained):
    origins = jnp.array([[int(origin) for origin in Origin]], jnp.uint8)
    expected = [[origin in trained for origin in Origin]]
    np.testing.assert_array_equal(loss_mask(origins, trained=trained), expected)


@pytest.mark.parametrize(
    ("treatment", "trained", "off_policy"),
    [
        (GuidanceLoss.MASK, "SAMPLED", ""),
        (GuidanceLoss.INCLUDE, "SAMPLED GUIDANCE", ""),
        (GuidanceLoss.OFF_POLICY, "SAMPLED GUIDANCE", "GUIDANCE"),
    ],
)
def test_guidance_is_trained_as_chosen(treatment, trained, off_policy):
    actual = guidance_origins(treatment)
    expected = tuple(
        {Origin[name] for name in names.split()} for names in (trained, off_policy)
    )
    assert tuple(map(set, actual)) == expected


def test_row_mask_leaves_rows_out():
    origins = jnp.array([[1, 2, 2], [1, 2, 0]], jnp.uint8)
    mask = loss_mask(origins, jnp.array([False, True]))
    np.testing.assert_array_equal(mask, [[0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("aggregation", "short", "long"),
    [
        (Aggregation.SEQUENCE_MEAN, 1 / 4, 1 / 12),
        (Aggregation.TOKEN_MEAN, 1 / 8, 1 / 8),
        (Aggregation.CONSTANT, 1 / 16, 1 / 16),
        (Aggregation.SEQUENCE_SUM, 1 / 2, 1 / 2),
    ],
)
def test_literals(aggregation, short, long):
    mask = lengths_mask([2, 6])
    expected = np.where(mask, [[short], [long]], 0)
    np.testing.assert_allclose(weights(mask, aggregation), expected, rtol=1e-7)


def test_groups_count_alike_whatever_their_tokens():
    mask = lengths_mask([2, 6, 1, 1, 0, 0])

    def of_groups(mask):
        return loss_weights(
            jnp.asarray(mask, bool),
            loss=Loss.BNPO,
            aggregation=Aggregation.GROUP_TOKEN_MEAN,
            max_completion_tokens=8,
            group_size=2,
        )

    # Two groups have tokens: 8 and 2 of them.
    expected = mask * np.array([1 / 16] * 2 + [1 / 4] * 2 + [0] * 2)[:, None]
    np.testing.assert_allclose(of_groups(mask), expected, rtol=1e-7)
    one = lengths_mask([2, 6])  # a single group: the mean over its tokens
    np.testing.assert_array_equal(of_groups(one), weights(one, Aggregation.TOKEN_MEAN))


@pytest.mark.parametrize(
    ("aggregation", "losses"),
    [
        (Aggregation.SEQUENCE_MEAN, [Loss.GRPO, Loss.GSPO, Loss.SAPO]),
        (Aggregation.TOKEN_MEAN, [Loss.BNPO, Loss.DAPO, Loss.CISPO]),
        (Aggregation.CONSTANT, [Loss.DR_GRPO]),
        (Aggregation.SEQUENCE_SUM, [Loss.LUSPO]),
    ],
)
def test_published_is_the_one_of_the_loss(aggregation, losses):
    mask = lengths_mask([2, 6])
    for loss in losses:
        assert published_aggregation(loss) is aggregation
        actual = weights(mask, Aggregation.PUBLISHED, loss)
        np.testing.assert_array_equal(actual, weights(mask, aggregation))


@pytest.mark.parametrize(
    ("aggregation", "both", "first", "neither"),
    [
        (Aggregation.TOKEN_MEAN, 0.5, -1, 0),
        (Aggregation.SEQUENCE_MEAN, 0, -1, 0),
        (Aggregation.CONSTANT, 0.25, -0.25, 0),
        (Aggregation.SEQUENCE_SUM, 2, -2, 0),
    ],
)
def test_sums_of_reinforce_at_ratio_one(aggregation, both, first, neither):
    """A = (1, -1) over 2 and 6 tokens: every token's loss is -A."""
    token_losses = np.array([[-1.0], [1.0]])
    for lengths, expected in [([2, 6], both), ([2, 0], first), ([0, 0], neither)]:
        actual = jnp.sum(weights(lengths_mask(lengths), aggregation) * token_losses)
        np.testing.assert_allclose(actual, expected, atol=1e-7)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_rows_and_columns_left_out_change_no_other_weight(aggregation):
    mask = np.random.default_rng(0).random((5, 8)) < 0.5
    mask[:, 0] = True
    expected = weights(mask, aggregation)
    padded = np.pad(mask, ((2, 1), (3, 4)))
    actual = weights(padded, aggregation)
    np.testing.assert_array_equal(actual[2:-1, 3:-4], expected)
    np.testing.assert_array_equal(jnp.where(padded, 0, actual), 0)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_empty_mask_weighs_nothing(aggregation):
    with jax.debug_infs(True):
        actual = weights(np.zeros((3, 4)), aggregation)
    np.testing.assert_array_equal(actual, 0)


def test_means_are_means():
    mask = lengths_mask([3, 0, 8, 1])
    sequence = weights(mask, Aggregation.SEQUENCE_MEAN)
    np.testing.assert_allclose(sequence.sum(1), [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(weights(mask, Aggregation.TOKEN_MEAN).sum(), 1, 1e-6)


def test_second_call_does_not_recompile():
    traces = []

    @jax.jit
    def compute(origins):
        traces.append(1)
        return weights(loss_mask(origins), Aggregation.PUBLISHED)

    for fill in itertools.islice(Origin, 1, 3):
        compute(jnp.full((2, 3), int(fill), jnp.uint8))
    assert len(traces) == 1
