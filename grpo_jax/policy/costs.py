"""Operations and bytes a model needs, counted from its shape and true token counts.

A product of [m, k] and [k, n] counts 2 m k n. Norms, softmax and rotations, padding and
recomputation are not counted: this is what must be done, not what a program does.
"""

import numpy as np
from jaxtyping import Int

from grpo_jax.policy.presets import Architecture

Lengths = Int[np.ndarray, " B"]


def matmul_params(arch: Architecture) -> int:
    """Returns the weights of all layers that multiply every token; not the head."""
    heads = (2 * arch.num_heads + 2 * arch.num_kv_heads) * arch.head_dim
    return arch.num_layers * arch.model_dim * (heads + 3 * arch.feed_forward_dim)


def total_params(arch: Architecture) -> int:
    """Returns all weights, those of norms and biases too."""
    tables = (1 if arch.tied_head else 2) * arch.vocab_size * arch.model_dim
    norms = 2 * arch.model_dim + (2 * arch.head_dim if arch.qk_norm else 0)
    biases = (arch.num_heads + 2 * arch.num_kv_heads) * arch.head_dim
    small = norms + (biases if arch.attention_bias else 0)
    return tables + matmul_params(arch) + arch.num_layers * small + arch.model_dim


def kv_bytes_per_token(arch: Architecture, itemsize: int) -> int:
    """Returns the bytes of one token's keys and values in all layers."""
    return 2 * arch.num_layers * arch.num_kv_heads * arch.head_dim * itemsize


def forward_flops(arch: Architecture, lengths: Lengths, scored: Lengths) -> float:
    """Returns the operations of one causal forward pass over whole rows.

    Args:
      arch: the shape of the model.
      lengths: tokens of each row.
      scored: positions of each row whose logits are computed.
    """
    tokens = lengths.astype(np.float64)
    attended = (tokens * (tokens + 1) / 2).sum()
    return (
        2.0 * matmul_params(arch) * tokens.sum()
        + _attention_flops(arch) * attended
        + 2.0 * arch.vocab_size * arch.model_dim * float(scored.sum())
    )


def update_flops(arch: Architecture, lengths: Lengths, scored: Lengths) -> float:
    """Returns the operations of a forward and backward pass: three forward passes."""
    return 3.0 * forward_flops(arch, lengths, scored)


def decode_flops(arch: Architecture, prompts: Lengths, lengths: Lengths) -> float:
    """Returns the operations of sampling what follows each prompt, token by token.

    Args:
      arch: the shape of the model.
      prompts: tokens of each prompt; the prompt pass is not counted.
      lengths: tokens of each row in all.
    """
    prompts, lengths = prompts.astype(np.float64), lengths.astype(np.float64)
    # The token at position t attends over t tokens, itself included.
    attended = (lengths * (lengths - 1) - prompts * (prompts - 1)) / 2
    weights = matmul_params(arch) + arch.vocab_size * arch.model_dim
    return (
        2.0 * weights * float((lengths - prompts).sum())
        + _attention_flops(arch) * attended.sum()
    )


def _attention_flops(arch: Architecture) -> float:
    """Returns the operations of one query over one key, in all layers."""
    return 4.0 * arch.num_layers * arch.num_heads * arch.head_dim
