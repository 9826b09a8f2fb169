"""Sizes of the models the policy can be, as data."""

import dataclasses
import difflib
import math

FAMILIES = ("qwen2", "qwen3", "llama")
# Sizes that `resized` takes along with the width.
FOLLOW_WIDTH = ("num_heads", "num_kv_heads", "feed_forward_dim")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3 frequency scaling. Source: Llama 3.1 `rope_type: llama3`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_tokens: int


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Shape of one dense decoder. Hashable, so that jit can take it as static.

    Attributes:
      family: "qwen2", "qwen3" or "llama": the Hugging Face `model_type`.
      attention_bias: biases on query, key and value (Qwen2).
      qk_norm: RMS norm of each query and key head (Qwen3).
      tied_head: the output head is the embedding table.
    """

    family: str
    vocab_size: int
    num_layers: int
    model_dim: int
    feed_forward_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context_tokens: int
    attention_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = True
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-6

    def __post_init__(self):
        """Refuses sizes that no decoder can have."""
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}: use one of {FAMILIES}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not (type(value) is int and value > 0):
                raise ValueError(f"{field.name} is {value!r}: use an integer above 0")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads is {self.num_kv_heads}: it must divide num_heads, "
                f"which is {self.num_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim is {self.head_dim}: rotary positions turn pairs of "
                "numbers, so it must be even"
            )


def _qwen2(**sizes) -> Architecture:
    return Architecture(
        family="qwen2", vocab_size=151_936, head_dim=128, attention_bias=True, **sizes
    )


def _qwen3(**sizes) -> Architecture:
    return Architecture(
        family="qwen3",
        vocab_size=151_936,
        num_kv_heads=8,
        head_dim=128,
        max_context_tokens=40_960,
        qk_norm=True,
        rope_theta=1e6,
        **sizes,
    )


_QWEN2_5_1_5B = _qwen2(
    num_layers=28,
    model_dim=1536,
    feed_forward_dim=8960,
    num_heads=12,
    num_kv_heads=2,
    max_context_tokens=131_072,
    rope_theta=1e6,
)

# For characters on a CPU: 136k parameters with a hundred symbols. Its vocabulary is the
# tokenizer's.
_MINIATURE = Architecture(
    family="qwen3",
    vocab_size=100,
    num_layers=3,
    model_dim=64,
    feed_forward_dim=160,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_context_tokens=256,
    qk_norm=True,
)

PRESETS: dict[str, Architecture] = {
    "miniature": _MINIATURE,
    # With room for episodes: questions, documents and answers.
    "miniature-agent": dataclasses.replace(_MINIATURE, max_context_tokens=1024),
    "qwen2.5-0.5b": dataclasses.replace(
        _QWEN2_5_1_5B,
        num_layers=24,
        model_dim=896,
        feed_forward_dim=4864,
        num_heads=14,
        head_dim=64,
        max_context_tokens=32_768,
    ),
    "qwen2.5-1.5b": _QWEN2_5_1_5B,
    "r1-distill-qwen-1.5b": dataclasses.replace(
        _QWEN2_5_1_5B, tied_head=False, rope_theta=10_000.0
    ),
    "qwen3-0.6b": _qwen3(
        num_layers=28, model_dim=1024, feed_forward_dim=3072, num_heads=16
    ),
    "qwen3-1.7b": _qwen3(
        num_layers=28, model_dim=2048, feed_forward_dim=6144, num_heads=16
    ),
    "qwen3-8b": _qwen3(
        num_layers=36,
        model_dim=4096,
        feed_forward_dim=12_288,
        num_heads=32,
        tied_head=False,
    ),
    "llama-3.2-1b": Architecture(
        family="llama",
        vocab_size=128_256,
        num_layers=16,
        model_dim=2048,
        feed_forward_dim=8192,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        max_context_tokens=131_072,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192),
        norm_epsilon=1e-5,
    ),
}


def preset(name: str, vocab_size: int | None = None) -> Architecture:
    """Returns the architecture of that name.

    Args:
      name: a key of `PRESETS`.
      vocab_size: rows of the embedding, where the tokenizer decides; None keeps the
        published one.

    Raises:
      ValueError: no such preset, with the nearest names.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"there is no preset {name!r}; {hint or f'use one of {list(PRESETS)}'}"
        )
    arch = PRESETS[name]
    return (
        arch if vocab_size is None else dataclasses.replace(arch, vocab_size=vocab_size)
    )


def resized(arch: Architecture, model_dim: int = 0, **sizes: int) -> Architecture:
    """Returns `arch` with other sizes.

    Args:
      arch: where the rest comes from.
      model_dim: the width; 0 keeps it.
      **sizes: other fields. Where they are absent or 0, heads and the feed-forward
        width follow the width in proportion, and the rest stays.

    Raises:
      ValueError: sizes that no decoder can have.
    """
    width = model_dim or arch.model_dim
    new = {n: max(1, getattr(arch, n) * width // arch.model_dim) for n in FOLLOW_WIDTH}
    new |= {name: size for name, size in sizes.items() if size}
    if not sizes.get("num_kv_heads"):
        new["num_kv_heads"] = math.gcd(new["num_kv_heads"], new["num_heads"])
    return dataclasses.replace(arch, model_dim=width, **new)
