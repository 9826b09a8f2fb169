"""What the backward pass recomputes, and the names that say so.

A layer names the few arrays worth keeping; `choices.Remat` picks among the names.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from grpo_jax import choices

# Queries, keys and values as projected: norms and rotation are cheap to do again.
INPUTS = "attention_inputs"
# What attention returns and, where it has one, the log-sum-exp its gradient needs.
OUTPUT = "attention_output"


def name_input(x: Array) -> Array:
    """Returns `x` marked as projected queries, keys or values."""
    return checkpoint_name(x, INPUTS)


def name_output(x: Array) -> Array:
    """Returns `x` marked as a result of attention.

    Each implementation marks its own, once: an array with two marks is kept twice.
    """
    return checkpoint_name(x, OUTPUT)


def recompute(block: Callable[..., Any], remat: choices.Remat) -> Callable[..., Any]:
    """Returns `block`, which under differentiation keeps only what `remat` says.

    Args:
      block: the body of a scan over layers.
      remat: what the backward pass recomputes.
    """
    policies = jax.checkpoint_policies
    match remat:
        case choices.Remat.NONE:
            return block
        case choices.Remat.FULL:
            policy = policies.nothing_saveable
        case choices.Remat.ATTENTION:
            named = policies.save_only_these_names(INPUTS, OUTPUT)
            policy = policies.save_from_both_policies(named, _is_fused_attention)
        case choices.Remat.DOTS:
            dots = policies.dots_with_no_batch_dims_saveable
            named = policies.save_only_these_names(OUTPUT)
            policy = policies.save_from_both_policies(dots, named)
            policy = policies.save_from_both_policies(policy, _is_fused_attention)
    # Inside a scan nothing can be merged across the two passes.
    return jax.checkpoint(block, prevent_cse=False, policy=policy)


def _is_fused_attention(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether it is cuDNN's forward pass, whose results nobody outside can name."""
    return primitive.name.startswith("dot_product_attention_fwd")
