import dataclasses
import math

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from grpo_jax import choices
from grpo_jax.config import ObjectiveConfig, OptimizerConfig
from grpo_jax.policy import sharding, transformer
from grpo_jax.records import Origin, TrainBatch
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer.optimizer import make_optimizer, make_schedule
from grpo_jax.trainer.scorer import Scorer
from grpo_jax.trainer.step import Update, grpo_loss, init_state
from tests import helpers

MESHES = [(8, 1, 1), (2, 4, 1), (2, 2, 2)]
ROWS, COLUMNS, PROMPT = 16, 20, 6
# Epsilon keeps Adam's first step from being the sign of a rounding error.
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, epsilon=1e-2, weight_decay=0.1)


def abstract_of(arch):
    return transformer.abstract_params(arch)


def named_leaves(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def batch_of(arch):
    rng = np.random.default_rng(0)
    origins = np.full((ROWS, COLUMNS), Origin.SAMPLED, np.uint8)
    origins[:, :PROMPT] = Origin.PROMPT
    log_probs = rng.normal(-2.5, 0.3, (3, ROWS, COLUMNS)).astype(np.float32)
    return TrainBatch(
        tokens=rng.integers(4, arch.vocab_size, (ROWS, COLUMNS)).astype(np.int32),
        origins=origins,
        prompt_lengths=np.full(ROWS, PROMPT, np.int32),
        advantages=rng.normal(size=ROWS).astype(np.float32),
        loss_weights=np.where(origins == Origin.SAMPLED, 1 / (ROWS * 14), 0).astype(
            np.float32
        ),
        behavior_log_probs=log_probs[0],
        old_log_probs=log_probs[1],
        reference_log_probs=log_probs[2],
    )


def updated(arch, mesh):
    """One whole update on a mesh: the new state and the metrics."""
    schedule = make_schedule(OPTIMIZER, 10)
    optimizer = make_optimizer(OPTIMIZER, schedule)
    scorer = Scorer(
        arch=arch,
        mesh=mesh,
        dtype=choices.Dtype.FLOAT32,
        remat=choices.Remat.NONE,
        attention=choices.Attention.AUTO,
        temperature=1.0,
        completion_columns=COLUMNS - PROMPT,
        chunk_tokens=12,
    )
    objective = ObjectiveConfig(kl_coef=0.1, divergence=choices.Divergence.K2)
    params = jax.device_get(helpers.params_of(arch))
    with jax.set_mesh(mesh):
        params = jax.device_put(params, sharding.param_shardings(mesh, params))
        state = init_state(params, optimizer, mesh)
        update = Update(
            scorer,
            grpo_loss(objective),
            optimizer,
            schedule,
            helpers.abstract_like(state),
        )
        micros = batches.micro_batches(
            batch_of(arch),
            widest=COLUMNS,
            budget_tokens=ROWS // 2 * COLUMNS,
            row_shards=scorer.row_shards,
        )
        assert len(micros) == 2
        return update(state, sharding.put_rows(micros, mesh))


@pytest.fixture(scope="module")
def on_one_device():
    results = {}

    def result(variant):
        if variant not in results:
            arch = helpers.VARIANTS[variant]
            results[variant] = jax.device_get(updated(arch, helpers.one_device_mesh()))
        return results[variant]

    return result


def check_update(arch, mesh, expected):
    state, metrics = updated(arch, mesh)
    assert metrics["policy/clip_fraction"] > 0 and metrics["optimizer/skipped"] == 0
    for name, value in metrics.items():
        assert float(value) == pytest.approx(float(expected[1][name]), 1e-4, 1e-5), name
    # The first moments are a tenth of the (clipped) gradients: compare these tighter.
    for name, atol in (("params", 1e-5), ("opt_state", 1e-6)):
        jax.tree.map(
            lambda got, want, atol=atol: np.testing.assert_allclose(
                got, want, rtol=0, atol=atol
            ),
            jax.device_get(getattr(state, name)),
            getattr(expected[0], name),
        )
    moments = [
        optax.tree_utils.tree_get(state.opt_state, name) for name in ("mu", "nu")
    ]
    for tree in (state.params, *moments):
        for name, leaf in named_leaves(tree).items():
            axes = [axis for axis in sharding.RULES[name] if axis]
            whole = arch.vocab_size % mesh.shape["tensor"] and leaf.shape[0] == (
                arch.vocab_size
            )
            parts = math.prod(
                mesh.shape[a] for a in axes if not (whole and a == "tensor")
            )
            shards = {str(shard.index) for shard in leaf.addressable_shards}
            assert len(shards) == parts, name
            assert leaf.addressable_shards[0].data.size * parts == leaf.size, name
            # Nothing of any size is whole on every device by accident.
            if leaf.size > 256 and mesh.shape["fsdp"] > 1:
                assert parts >= mesh.shape["fsdp"], name


@pytest.mark.system
@pytest.mark.parametrize("shape", MESHES)
def test_eight_devices_learn_what_one_learns(on_one_device, shape):
    mesh = sharding.make_mesh(*shape)
    check_update(helpers.TINY, mesh, on_one_device("qwen3"))


@pytest.mark.system
@pytest.mark.parametrize("variant", ["qwen2", "llama"])
def test_every_family_learns_the_same_on_a_full_mesh(on_one_device, variant):
    mesh = sharding.make_mesh(2, 2, 2)
    check_update(helpers.VARIANTS[variant], mesh, on_one_device(variant))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["qwen2", "llama"])
@pytest.mark.parametrize("shape", MESHES[:2])
def test_every_family_learns_the_same(on_one_device, variant, shape):
    mesh = sharding.make_mesh(*shape)
    check_update(helpers.VARIANTS[variant], mesh, on_one_device(variant))


@pytest.mark.slow
def test_an_odd_vocabulary_stays_whole():
    arch = dataclasses.replace(helpers.TINY, vocab_size=49, tied_head=False)
    one = jax.device_get(updated(arch, helpers.one_device_mesh()))
    check_update(arch, sharding.make_mesh(2, 2, 2), one)


@pytest.mark.parametrize("variant", helpers.VARIANTS)
def test_every_weight_has_a_rule_of_its_rank(variant):
    leaves = named_leaves(abstract_of(helpers.VARIANTS[variant]))
    assert set(leaves) <= set(sharding.RULES)
    for name, leaf in leaves.items():
        assert len(sharding.RULES[name]) == leaf.ndim, name
        matrix = name.endswith(("kernel", "table"))
        assert ("fsdp" in sharding.RULES[name]) == matrix, name
        assert ("tensor" in sharding.RULES[name]) == (matrix or "bias" in name), name


def test_every_rule_is_of_some_weight():
    names = [named_leaves(abstract_of(arch)) for arch in helpers.VARIANTS.values()]
    assert set(sharding.RULES) == set().union(*names)


def specs(tree):
    return {name: leaf.spec for name, leaf in named_leaves(tree).items()}


def test_shardings_of_weights():
    mesh = sharding.make_mesh(2, 2, 2)
    got = specs(sharding.param_shardings(mesh, abstract_of(helpers.TINY)))
    assert got["embedding/table"] == PartitionSpec("tensor", "fsdp")
    assert got["layers/attention/output/kernel"] == PartitionSpec(
        None, "tensor", None, "fsdp"
    )
    assert got["layers/feed_forward/gate/kernel"] == PartitionSpec(
        None, "fsdp", "tensor"
    )


def test_a_vocabulary_that_tensor_does_not_divide_stays_whole():
    arch = dataclasses.replace(helpers.TINY, vocab_size=49, tied_head=False)
    mesh = sharding.make_mesh(2, 2, 2)
    got = specs(sharding.param_shardings(mesh, abstract_of(arch)))
    for name in ("embedding/table", "head/kernel"):
        assert got[name] == PartitionSpec(None, "fsdp")
    assert got["layers/feed_forward/gate/kernel"] == PartitionSpec(
        None, "fsdp", "tensor"
    )


@pytest.mark.parametrize("variant", helpers.VARIANTS)
def test_the_rollout_view_keeps_only_tensor(variant):
    arch = helpers.VARIANTS[variant]
    mesh = sharding.make_mesh(2, 2, 2)
    stacked = sharding.param_shardings(mesh, abstract_of(arch), axes=("tensor",))
    view = sharding.unstack(stacked, arch)
    assert len(view["layers"]) == arch.num_layers
    for layer in view["layers"]:
        for name, spec in specs(layer).items():
            rule = sharding.RULES[f"layers/{name}"][1:]
            kept = [axis if axis == "tensor" else None for axis in rule]
            assert spec == PartitionSpec(*kept), name
    assert view["embedding"]["table"].spec == PartitionSpec("tensor", None)
    shapes = jax.eval_shape(
        lambda params: transformer.rollout_view(params, arch, choices.Dtype.FLOAT32),
        abstract_of(arch),
    )
    assert jax.tree.structure(shapes) == jax.tree.structure(view)


def test_data_takes_what_is_left():
    assert sharding.make_mesh(0, 2, 2).shape == {"data": 2, "fsdp": 2, "tensor": 2}
    assert sharding.make_mesh(0, 1, 1).shape == {"data": 8, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("shape", "needed"), [((0, 3, 1), 6), ((4, 1, 1), 4), ((0, 16, 1), 16)]
)
def test_a_mesh_of_another_size_is_refused(shape, needed):
    with pytest.raises(ValueError) as error:
        sharding.make_mesh(*shape)
    message = str(error.value)
    assert message.startswith("config.mesh is data=")
    assert f"fsdp={shape[1]}, tensor={shape[2]}" in message
    assert f"needs {needed} devices; there are 8" in message
    assert "set data=0" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 9, "num_kv_heads": 3}, "mesh.tensor is 2: .*num_heads, .* 9"),
        ({"num_kv_heads": 1}, "mesh.tensor is 2: .*num_kv_heads, which is 1"),
        ({"feed_forward_dim": 63}, "mesh.tensor is 2: .*feed_forward_dim, which is 63"),
        ({"model_dim": 33}, "mesh.fsdp is 2: .*model_dim, which is 33"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(changes, message):
    mesh = sharding.make_mesh(2, 2, 2)
    sharding.check_mesh(helpers.TINY, mesh)
    with pytest.raises(ValueError, match=message):
        sharding.check_mesh(dataclasses.replace(helpers.TINY, **changes), mesh)


def test_rows_are_split_over_data_and_fsdp():
    mesh = sharding.make_mesh(2, 2, 2)
    rows = sharding.put_rows(np.arange(8), mesh)
    parts = {tuple(np.asarray(shard.data)) for shard in rows.addressable_shards}
    assert parts == {(0, 1), (2, 3), (4, 5), (6, 7)}
