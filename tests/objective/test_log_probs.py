import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.sharding import NamedSharding, PartitionSpec

from grpo_jax.objective.log_probs import token_log_probs
from tests import helpers

B, C, D, V = 2, 7, 5, 33


def inputs(seed=0, shape=(B, C, D, V), scale=1.0, dtype=float):
    b, c, d, v = shape
    rng = np.random.default_rng(seed)
    hidden = jnp.asarray(rng.normal(size=(b, c, d)), dtype)
    head = jnp.asarray(rng.normal(size=(v, d)) * scale, dtype)
    return hidden, head, jnp.asarray(rng.integers(0, v, (b, c)), jnp.int32)


def naive(hidden, head, targets, *, temperature):
    """Computes the same from all the logits at once."""
    log_p = jax.nn.log_softmax(hidden @ head.T / temperature, axis=-1)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0], entropy


def slow(hidden, head, targets, temperature):
    """Computes the same one position at a time, in float64 NumPy."""
    hidden, head = np.asarray(hidden, np.float64), np.asarray(head, np.float64)
    log_probs, entropy = np.zeros(targets.shape), np.zeros(targets.shape)
    for index in np.ndindex(*targets.shape):
        logits = head @ hidden[index] / temperature
        p = np.exp(logits - logits.max())
        p /= p.sum()
        log_probs[index] = math.log(p[targets[index]])
        entropy[index] = -sum(x * math.log(x) for x in p if x > 0)
    return log_probs, entropy


def test_literals():
    """Logits ln 1, ln 2, ln 5 at temperature 1; their squares at one half."""
    head = jnp.log(jnp.array([[1.0], [2.0], [5.0]]))
    hidden, targets = jnp.ones((1, 3, 1)), jnp.array([[0, 1, 2]])
    log_probs, entropy = token_log_probs(
        hidden, head, targets, temperature=1.0, chunk_columns=2
    )
    np.testing.assert_allclose(jnp.exp(log_probs), [[0.125, 0.25, 0.625]], rtol=1e-6)
    np.testing.assert_allclose(entropy, [[0.900256] * 3], rtol=1e-6)
    log_probs, _ = token_log_probs(
        hidden, head, targets, temperature=0.5, chunk_columns=2
    )
    expected = [[1 / 30, 4 / 30, 25 / 30]]
    np.testing.assert_allclose(jnp.exp(log_probs), expected, rtol=1e-6)


def test_uniform_and_certain_distributions():
    targets = jnp.array([[3]])
    log_probs, entropy = token_log_probs(
        jnp.zeros((1, 1, D)),
        jnp.ones((V, D)),
        targets,
        temperature=1.0,
        chunk_columns=1,
    )
    np.testing.assert_allclose([-log_probs[0, 0], entropy[0, 0]], math.log(V), 1e-6)
    head = jnp.zeros((V, D)).at[3].set(1e4)
    log_probs, entropy = token_log_probs(
        jnp.ones((1, 1, D)), head, targets, temperature=1.0, chunk_columns=1
    )
    np.testing.assert_array_equal([log_probs[0, 0], entropy[0, 0]], 0)


@pytest.mark.parametrize(
    ("temperature", "chunk"), [(0.5, 1), (0.7, 3), (1.0, 7), (1.6, 64)]
)
def test_matches_slow_reference(temperature, chunk):
    arrays = inputs(scale=3.0)
    actual = token_log_probs(*arrays, temperature=temperature, chunk_columns=chunk)
    expected = slow(*arrays, temperature)
    assert all(array.dtype == jnp.float32 for array in actual)
    np.testing.assert_allclose(actual[0], expected[0], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(actual[1], expected[1], rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("temperature", "chunk"), [(0.7, 1), (0.7, 3), (1.0, 7)])
def test_gradient_matches_autodiff_of_all_logits(float64, temperature, chunk):
    hidden, head, targets = inputs()
    rng = np.random.default_rng(3)
    d_log_probs, d_entropy = (jnp.asarray(rng.normal(size=(B, C))) for _ in range(2))
    zero = jnp.zeros((B, C))

    @jax.jit
    def compute(cotangents):
        def pull(score, **kwargs):
            scores, pull_back = jax.vjp(
                lambda h, w: score(h, w, targets, temperature=temperature, **kwargs),
                hidden,
                head,
            )
            return scores, pull_back(cotangents)

        return pull(token_log_probs, chunk_columns=chunk), pull(naive)

    for cotangents in (
        (d_log_probs, zero),
        (zero, d_entropy),
        (d_log_probs, d_entropy),
    ):
        actual, expected = compute(cotangents)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12),
            actual,
            expected,
        )


def test_bfloat16_inputs_give_float32_scores_and_bfloat16_gradients():
    hidden, head, targets = inputs(dtype=jnp.bfloat16, scale=2.0)

    def compute(hidden, head):
        log_probs, entropy = token_log_probs(
            hidden, head, targets, temperature=0.7, chunk_columns=2
        )
        return log_probs.sum() + entropy.sum(), (log_probs, entropy)

    differentiate = jax.jit(jax.grad(compute, (0, 1), has_aux=True))
    gradients, scores = differentiate(hidden, head)
    assert [x.dtype for x in scores] == [jnp.float32] * 2
    assert [x.dtype for x in gradients] == [jnp.bfloat16] * 2
    # Products of bfloat16 numbers are exact in float32: only the gradients round.
    for actual, expected in zip(scores, slow(hidden, head, targets, 0.7), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    wide, _ = differentiate(hidden.astype(jnp.float32), head.astype(jnp.float32))
    for actual, expected in zip(gradients, wide, strict=True):
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(
            actual.astype(jnp.float32), expected, rtol=0, atol=0.01 * scale
        )


def test_head_gradient_accumulates_in_float32():
    """One large and 512 small contributions, of which bfloat16 sums would lose all."""
    columns = 513
    hidden = jnp.full((1, columns, 1), 2.0**-9, jnp.bfloat16).at[0, 0, 0].set(1)
    head = jnp.zeros((2, 1), jnp.bfloat16)
    targets = jnp.zeros((1, columns), jnp.int32)

    def compute(head):
        return token_log_probs(hidden, head, targets, temperature=1.0, chunk_columns=1)[
            0
        ].sum()

    gradient = jax.grad(compute)(head).astype(jnp.float32)
    np.testing.assert_array_equal(gradient, [[1.0], [-1.0]])


def sizes_of_intermediates(jaxpr):
    """Yields the size of every value computed in a jaxpr and those inside it."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield math.prod(variable.aval.shape)
        for inner in core.jaxprs_in_params(equation.params):
            yield from sizes_of_intermediates(inner)


def largest_intermediate(score, hidden, head, targets, **kwargs):
    def compute(hidden, head):
        log_probs, entropy = score(hidden, head, targets, temperature=1.0, **kwargs)
        return log_probs.sum() + entropy.sum()

    traced = jax.make_jaxpr(jax.value_and_grad(compute, (0, 1)))(hidden, head)
    return max(sizes_of_intermediates(traced.jaxpr))


def test_never_holds_all_logits_forward_or_backward():
    shape = b, c, d, v = 3, 40, 2, 50
    arrays = inputs(shape=shape)
    assert largest_intermediate(naive, *arrays) == b * c * v
    # 40 columns in chunks of at most 16: three of 14, not two of 16 and a third of 8.
    for most, chunk in ((1, 1), (8, 8), (16, 14)):
        largest = largest_intermediate(token_log_probs, *arrays, chunk_columns=most)
        assert largest == max(b * chunk * v, b * -(-c // chunk) * chunk * d)


def test_rows_may_be_sharded():
    """Rows split over all devices give the same numbers, and logits never travel."""
    devices = jax.device_count()
    hidden, head, targets = inputs(shape=(2 * devices, 8, 4, 257))
    mesh = jax.make_mesh((devices,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())

    @jax.jit
    def compute(hidden, head, targets):
        def total(hidden, head):
            scores = token_log_probs(
                hidden, head, targets, temperature=0.7, chunk_columns=4
            )
            return scores[0].sum() + scores[1].sum(), scores

        return jax.grad(total, (0, 1), has_aux=True)(hidden, head)

    expected = compute(hidden, head, targets)
    placed = (
        jax.device_put(hidden, rows),
        jax.device_put(head, whole),
        jax.device_put(targets, rows),
    )
    (d_hidden, d_head), scores = actual = compute(*placed)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        actual,
        expected,
    )
    for array in (d_hidden, *scores):
        assert array.sharding.is_equivalent_to(rows, array.ndim)
    assert d_head.shape == head.shape
    assert "all-gather" not in compute.lower(*placed).compile().as_text()


def test_a_head_split_over_a_mesh_is_neither_gathered_nor_reduced_by_chunk():
    """Rows over data and fsdp; the head over tensor (vocabulary) and fsdp (width)."""
    b, c, d, v = 16, 12, 8, 512
    hidden, head, targets = inputs(shape=(b, c, d, v))
    names, auto = ("data", "fsdp", "tensor"), jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((2, 2, 2), names, (auto,) * 3)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    split = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    by_vocabulary = NamedSharding(mesh, PartitionSpec("tensor", None))

    def differentiate(hidden, head, targets, row_groups, placed):
        def total(hidden, head):
            if placed:
                head = jax.lax.with_sharding_constraint(head, by_vocabulary)
            scores = token_log_probs(
                hidden,
                head,
                targets,
                temperature=0.7,
                chunk_columns=4,
                row_groups=row_groups,
            )
            return scores[0].sum() + scores[1].sum(), scores

        return jax.grad(total, (0, 1), has_aux=True)(hidden, head)

    expected = differentiate(hidden, head, targets, 1, False)
    compiled = (
        jax.jit(
            differentiate,
            static_argnums=(3, 4),
            in_shardings=(rows, split, rows),
            out_shardings=((rows, split), rows),
        )
        .lower(hidden, head, targets, 4, True)
        .compile()
    )
    placed = jax.device_put((hidden, head, targets), (rows, split, rows))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        compiled(*placed),
        expected,
    )
    shard = v // 2 * d
    moved = helpers.collectives(compiled)
    # The half of the vocabulary that a device scores, gathered over fsdp, once.
    assert [m for m in moved if m[1] == "all-gather"] == [(True, "all-gather", shard)]
    # In a loop, only numbers of positions and hidden states of a chunk.
    assert max(size for entry, _, size in moved if not entry) <= b // 4 * 4 * d
    sums = [m for m in moved if m[0] and m[1] != "all-gather" and m[2] >= shard]
    assert len(sums) == 1
    # No device holds the logits of its rows of a chunk for the whole vocabulary.
    assert not re.search(rf"\[(\d+,)*{v}\]", compiled.as_text())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_rows_change_nothing(groups):
    hidden, head, targets = inputs(shape=(4, 6, D, V))

    def compute(hidden, head, row_groups):
        log_probs, entropy = token_log_probs(
            hidden,
            head,
            targets,
            temperature=0.7,
            chunk_columns=4,
            row_groups=row_groups,
        )
        return log_probs.sum() + 2 * entropy.sum()

    actual = jax.grad(compute, (0, 1))(hidden, head, groups)
    expected = jax.grad(compute, (0, 1))(hidden, head, 1)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: use a value above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"chunk_columns": 0}, "chunk_columns is 0: use at least 1"),
        ({"row_groups": 0}, "row_groups is 0: it must divide the rows, which are 2"),
        ({"row_groups": 4}, "row_groups is 4: it must divide the rows, which are 2"),
    ],
)
def test_impossible_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        token_log_probs(*inputs(), **{"temperature": 1.0, "chunk_columns": 4} | changed)


def test_unequal_dtypes_are_refused():
    hidden, head, targets = inputs()
    with pytest.raises(ValueError, match="hidden is float32 and head is bfloat16"):
        token_log_probs(
            hidden,
            head.astype(jnp.bfloat16),
            targets,
            temperature=1.0,
            chunk_columns=4,
        )


def test_second_call_does_not_recompile():
    traces = []

    @jax.jit
    def compute(hidden, head, targets):
        traces.append(1)
        return jax.grad(
            lambda h: token_log_probs(
                h, head, targets, temperature=1.0, chunk_columns=3
            )[0].sum()
        )(hidden)

    compute(*inputs(0))
    compute(*inputs(1))
    assert len(traces) == 1
