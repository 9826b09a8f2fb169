"""Causal attention of whole rows, by whichever implementation the hardware has.

Training and scoring attend over right-padded rows. Padding lies in the future of every
real token, so that a causal mask is all that is needed, and every implementation
computes the same function:

    xla          one matrix of scores [B, H, T, T]; the reference
    xla_chunked  blocks of scores, memory in T, on any hardware
    cudnn        NVIDIA's fused kernel
    splash       a Pallas kernel for TPUs

`resolve` chooses while tracing, from the configuration and the hardware at hand.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, assert_never

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from grpo_jax import choices
from grpo_jax.policy import attention, chunked_attention, remat
from grpo_jax.policy.sharding import ROWS

# Blocks of splash: multiples of a TPU's vector registers, up to a usual size that
# nobody has tuned for these models.
LANES, SPLASH_BLOCK = 128, 512


@dataclasses.dataclass(frozen=True)
class Hardware:
    """What the choice depends on.

    Attributes:
      backend: "cpu", "gpu" or "tpu".
      compute_capability: of an NVIDIA GPU, such as 9.0; 0 for everything else.
      splash: the splash kernel can be imported.
    """

    backend: str
    compute_capability: float = 0.0
    splash: bool = False


def this_hardware() -> Hardware:
    """Returns what this process runs on."""
    backend = jax.default_backend()
    splash = backend == "tpu" and _splash_modules() is not None
    return Hardware(backend, _compute_capability(), splash)


def resolve(
    choice: choices.Attention,
    hardware: Hardware,
    *,
    dtype: Any,
    head_dim: int,
) -> choices.Attention:
    """Returns the implementation to use; never AUTO.

    Args:
      choice: `config.policy.attention`.
      hardware: what it runs on.
      dtype: number format of queries, keys and values.
      head_dim: size K of a head.

    Raises:
      ValueError: the choice cannot run; what it needs and what was found.
    """
    needs = {
        choices.Attention.CUDNN: _cudnn_needs(hardware, jnp.dtype(dtype), head_dim),
        choices.Attention.SPLASH: _splash_needs(hardware, head_dim),
    }
    if choice is not choices.Attention.AUTO:
        if needs.get(choice):
            raise ValueError(
                f"config.policy.attention is {choice.value}, which needs "
                f"{needs[choice]}; use auto, xla or xla_chunked"
            )
        return choice
    for fused, missing in needs.items():
        if not missing:
            return fused
    # On rows of one block it saves no memory, but is not slower either.
    return choices.Attention.XLA_CHUNKED


def causal(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B T J K"],
    value: Float[Array, "B T J K"],
    implementation: choices.Attention = choices.Attention.AUTO,
) -> Float[Array, "B T H K"]:
    """Attention of each token over itself and what precedes it.

    Args:
      query: rotated queries.
      key: rotated keys; H / J query heads share one.
      value: values.
      implementation: as configured.

    Raises:
      ValueError: the implementation cannot run here.
    """
    chosen = resolve(
        implementation,
        this_hardware(),
        dtype=query.dtype,
        head_dim=query.shape[-1],
    )
    match chosen:
        case choices.Attention.XLA:
            return remat.name_output(attention.causal(query, key, value))
        case choices.Attention.XLA_CHUNKED:
            return chunked_attention.causal(query, key, value)
        case choices.Attention.CUDNN:
            return on_each_device(cudnn, query, key, value)
        case choices.Attention.SPLASH:
            return on_each_device(splash, query, key, value)
        case choices.Attention.AUTO:
            raise AssertionError("resolve returned AUTO")
        case _:
            assert_never(chosen)


def cudnn(query: Array, key: Array, value: Array) -> Array:
    """NVIDIA's fused attention; arguments and result as in `causal`."""
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=True, implementation="cudnn"
    )


def splash(query: Array, key: Array, value: Array, *, interpret: bool = False) -> Array:
    """TPU splash attention; arguments and result as in `causal`.

    Rows are padded to whole blocks and heads to whole registers, which they fill on
    the device in any case: zeros add nothing to a score, and the rest is cut off.

    Args:
      query: rotated queries.
      key: rotated keys.
      value: values.
      interpret: run the kernel step by step on any hardware, for tests.
    """
    modules = _splash_modules()
    assert modules is not None, "resolve let splash through without its kernel"
    kernels, masks = modules
    T, H, K = query.shape[1:]
    block = chunked_attention.block_tokens(T, SPLASH_BLOCK, LANES)
    width = -(-T // block) * block
    blocks = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((width, width))] * H),
        block_sizes=kernels.BlockSizes(
            **{f"block_{name}": block for name in (*blocks, "q_dq", "kv_dq")}
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=remat.OUTPUT,
        interpret=interpret,
    )

    def lay_out(x_BTHK: Array) -> Array:
        padding = ((0, 0), (0, width - T), (0, 0), (0, -K % LANES))
        return jnp.pad(x_BTHK, padding).swapaxes(1, 2)

    # The kernel does not scale scores.
    query_BHTK = lay_out((query * K**-0.5).astype(query.dtype))
    mixed_BHTK = jax.vmap(kernel)(query_BHTK, lay_out(key), lay_out(value))
    return mixed_BHTK.swapaxes(1, 2)[:, :T, :, :K]


def on_each_device(
    kernel: Callable[..., Array], query: Array, key: Array, value: Array
) -> Array:
    """Runs a kernel on every device of the mesh, for its rows and its heads.

    The compiler cannot split a kernel that it did not make. What the mesh does not
    divide evenly, every device computes whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return kernel(query, key, value)
    B, _, J, _ = key.shape
    even = B % math.prod(mesh.shape[axis] for axis in ROWS) == 0
    heads = "tensor" if J % mesh.shape["tensor"] == 0 else None
    spec = PartitionSpec(ROWS if even else None, None, heads, None)
    # Kernels do not say how their results vary over the mesh, so that is not checked.
    split = jax.shard_map(kernel, in_specs=spec, out_specs=spec, check_vma=False)
    return split(query, key, value)


def _cudnn_needs(hardware: Hardware, dtype: Any, head_dim: int) -> str:
    """Returns what keeps cuDNN's kernel from running; "" if nothing does."""
    if hardware.backend != "gpu":
        return f"an NVIDIA GPU: this backend is {hardware.backend}"
    capability = hardware.compute_capability
    if capability < 8:
        found = f"compute capability {capability}" if capability else "another maker's"
        return f"an NVIDIA GPU of compute capability 8.0 or newer: this one is {found}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"config.policy.dtype=bfloat16: this run computes in {dtype.name}"
    largest = 256 if capability >= 9 else 128
    if head_dim % 8 or head_dim > largest:
        return (
            f"heads of a multiple of 8 up to {largest} on compute capability "
            f"{capability}: this model's head_dim is {head_dim}"
        )
    return ""


def _splash_needs(hardware: Hardware, head_dim: int) -> str:
    """Returns what keeps the splash kernel from running; "" if nothing does."""
    if hardware.backend != "tpu":
        return f"a TPU: this backend is {hardware.backend}"
    if not hardware.splash:
        return (
            "jax.experimental.pallas.ops.tpu.splash_attention: jax "
            f"{jax.__version__} cannot import it"
        )
    if head_dim > 256:
        return f"heads of at most 256: this model's head_dim is {head_dim}"
    return ""


def _compute_capability() -> float:
    named = getattr(jax.local_devices()[0], "compute_capability", 0)
    try:
        return float(named)
    except ValueError:  # AMD names its chips: "gfx90a"
        return 0.0


def _splash_modules() -> tuple[Any, Any] | None:
    """Returns the kernel's two modules; None where this jax has moved them."""
    try:
        from jax.experimental.pallas.ops.tpu.splash_attention import (
            splash_attention_kernel,
            splash_attention_mask,
        )
    except ImportError:
        return None
    return splash_attention_kernel, splash_attention_mask
