"""The device mesh, and where every weight and every row lives on it.

Mesh axes are ("data", "fsdp", "tensor"), of type Auto: the compiler propagates
shardings, and we state them where they matter, at inputs, outputs and the residual
stream. Rows of a batch are split over data and fsdp; weights over fsdp and tensor.
"""

from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from grpo_jax.policy.presets import Architecture

ROWS = ("data", "fsdp")
# Devices that are here, or a plan of some.
AnyMesh = Mesh | AbstractMesh

# Which mesh axis splits each axis of a weight. Layer weights have L in front.
RULES: dict[str, tuple[str | None, ...]] = {
    "embedding/table": ("tensor", "fsdp"),
    "layers/attention_norm/scale": (None, None),
    "layers/attention/query/kernel": (None, "fsdp", "tensor", None),
    "layers/attention/query/bias": (None, "tensor", None),
    "layers/attention/key/kernel": (None, "fsdp", "tensor", None),
    "layers/attention/key/bias": (None, "tensor", None),
    "layers/attention/value/kernel": (None, "fsdp", "tensor", None),
    "layers/attention/value/bias": (None, "tensor", None),
    "layers/attention/output/kernel": (None, "tensor", None, "fsdp"),
    "layers/attention/query_norm/scale": (None, None),
    "layers/attention/key_norm/scale": (None, None),
    "layers/feed_forward_norm/scale": (None, None),
    "layers/feed_forward/gate/kernel": (None, "fsdp", "tensor"),
    "layers/feed_forward/up/kernel": (None, "fsdp", "tensor"),
    "layers/feed_forward/down/kernel": (None, "tensor", "fsdp"),
    "final_norm/scale": (None,),
    "head/kernel": ("tensor", "fsdp"),
}


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """Returns the mesh over all devices; `data` 0 takes what the others leave.

    Raises:
      ValueError: the axes do not multiply to the number of devices.
    """
    planned = abstract_mesh(data, fsdp, tensor, jax.device_count())
    return jax.make_mesh(
        planned.axis_sizes, planned.axis_names, axis_types=planned.axis_types
    )


def abstract_mesh(data: int, fsdp: int, tensor: int, devices: int) -> AbstractMesh:
    """Returns the mesh over so many devices, which need not exist.

    Raises:
      ValueError: the axes do not multiply to the number of devices.
    """
    if data == 0:
        data = max(1, devices // (fsdp * tensor))
    if data * fsdp * tensor != devices:
        raise ValueError(
            f"config.mesh is data={data}, fsdp={fsdp}, tensor={tensor}, which needs "
            f"{data * fsdp * tensor} devices; there are {devices}. Make the "
            "product equal, or set data=0 to use what is left"
        )
    shape, names = (data, fsdp, tensor), ("data", "fsdp", "tensor")
    return AbstractMesh(shape, names, axis_types=(AxisType.Auto,) * 3)


def check_mesh(arch: Architecture, mesh: AnyMesh) -> None:
    """Checks that the model's axes can be split as RULES says.

    The vocabulary is the exception: where `tensor` does not divide it, it stays whole.

    Raises:
      ValueError: naming the axis of the model and the flag of the mesh.
    """
    for axis, name, size in (
        ("tensor", "num_heads", arch.num_heads),
        ("tensor", "num_kv_heads", arch.num_kv_heads),
        ("tensor", "feed_forward_dim", arch.feed_forward_dim),
        ("fsdp", "model_dim", arch.model_dim),
    ):
        if size % mesh.shape[axis]:
            raise ValueError(
                f"config.mesh.{axis} is {mesh.shape[axis]}: it must divide the model's "
                f"{name}, which is {size}"
            )


def param_shardings(mesh: Mesh, abstract: Any, *, axes: tuple[str, ...] = ()) -> Any:
    """Returns a tree of NamedSharding for a tree of weights.

    Args:
      mesh: the devices.
      abstract: weights or their shapes, as `transformer.abstract_params` gives.
      axes: mesh axes that split weights; empty is all of them. The rollout view keeps
        only ("tensor",): one gather a step instead of one a decoded token.
    """

    def one(path: tuple, leaf: Any) -> NamedSharding:
        rule = RULES["/".join(key.key for key in path)]
        kept = [a if not axes or a in axes else None for a in rule]
        if kept[0] and leaf.shape[0] % mesh.shape[kept[0]]:
            kept[0] = None
        return NamedSharding(mesh, PartitionSpec(*kept))

    return jax.tree.map_with_path(one, abstract)


def unstack(shardings: Any, arch: Architecture) -> Any:
    """Returns the shardings of the rollout view: the stack's, less its L axis."""

    def one(stacked: NamedSharding) -> NamedSharding:
        return NamedSharding(stacked.mesh, PartitionSpec(*stacked.spec[1:]))

    layer = jax.tree.map(one, shardings["layers"])
    return {**shardings, "layers": [layer] * arch.num_layers}


def optimizer_shardings(
    mesh: Mesh, optimizer: optax.GradientTransformation, abstract: Any
) -> Any:
    """Returns shardings of the optimizer state: moments lie as their weights do.

    Left to itself, jit on an Auto mesh replicates them.
    """
    shapes = jax.eval_shape(optimizer.init, abstract)
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        shapes,
        param_shardings(mesh, abstract),
        transform_non_params=lambda _: replicated(mesh),
    )


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is rows."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def cache_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of keys and values [B, J, S, K]: by row and by head."""
    return NamedSharding(mesh, PartitionSpec(ROWS, "tensor"))


def put_rows(tree: Any, mesh: Mesh) -> Any:
    """Puts host arrays on the devices, their first axis split over them."""
    return jax.device_put(tree, row_sharding(mesh))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def constrain_rows(x: Array) -> Array:
    """Keeps the first axis of `x` split over the devices, inside jit on a mesh."""
    return _constrain(x, PartitionSpec(ROWS))


def constrain_cache(x: Array) -> Array:
    """Keeps keys or values [B, J, S, K] where they belong, inside jit on a mesh."""
    return _constrain(x, PartitionSpec(ROWS, "tensor"))


def constrain_replicated(tree: Any) -> Any:
    """Puts all of every array on every device, inside jit on a mesh."""
    return jax.tree.map(lambda x: _constrain(x, PartitionSpec()), tree)


def _constrain(x: Array, spec: PartitionSpec) -> Array:
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec)
