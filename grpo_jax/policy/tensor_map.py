"""Which Hugging Face tensor is which weight, and how its axes lie: one table.

A checkpoint keeps linear weights as [out, in] with the heads flattened, one tensor a
layer; here heads have their own axis, inputs come first and layers are stacked. Both
are written in the letters of the package, so reading and writing are one reshape and
one transpose, in either order.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from grpo_jax.policy.presets import Architecture

# Tensors that carry nothing: some exporters store this constant table.
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)
EMBEDDING_NAME = "model.embed_tokens.weight"
HEAD_NAME = "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One weight of the tree and the checkpoint's tensors it is made of.

    Attributes:
      path: keys of the tree, joined by "/".
      template: the tensor's name, with "{}" for the layer where it is stacked.
      ours: the axes here, one letter each, without L.
      theirs: the axes in the file; the letters of one word are flattened into one.
    """

    path: str
    template: str
    ours: str
    theirs: str

    @property
    def stacked(self) -> bool:
        """Whether the weight has a leading axis of layers."""
        return "{}" in self.template

    def names(self, arch: Architecture) -> list[str]:
        """Returns the tensors of the checkpoint, by layer."""
        count = arch.num_layers if self.stacked else 1
        return [self.template.format(layer) for layer in range(count)]

    def shape(self, arch: Architecture) -> tuple[int, ...]:
        """Returns the shape here."""
        layers = (arch.num_layers,) if self.stacked else ()
        return layers + _sizes(self.ours, arch)

    def stored_shape(self, arch: Architecture) -> tuple[int, ...]:
        """Returns the shape of each tensor in the file."""
        return tuple(math.prod(_sizes(word, arch)) for word in self.theirs.split())

    def from_stored(self, tensor: np.ndarray, arch: Architecture) -> np.ndarray:
        """Returns a view of a stored tensor with our axes."""
        letters = self.theirs.replace(" ", "")
        split = tensor.reshape(_sizes(letters, arch))
        return split.transpose([letters.index(letter) for letter in self.ours])

    def to_stored(self, weight: np.ndarray, arch: Architecture) -> np.ndarray:
        """Returns the weight of one layer as the file keeps it."""
        letters = self.theirs.replace(" ", "")
        turned = weight.transpose([self.ours.index(letter) for letter in letters])
        return turned.reshape(self.stored_shape(arch))


def _sizes(letters: str, arch: Architecture) -> tuple[int, ...]:
    sizes = {
        "V": arch.vocab_size,
        "D": arch.model_dim,
        "F": arch.feed_forward_dim,
        "H": arch.num_heads,
        "J": arch.num_kv_heads,
        "K": arch.head_dim,
    }
    return tuple(sizes[letter] for letter in letters)


_LAYER = "model.layers.{}."
_ATTENTION = _LAYER + "self_attn."
_FEED_FORWARD = _LAYER + "mlp."

_ALWAYS = (
    Rule("embedding/table", EMBEDDING_NAME, "VD", "V D"),
    Rule("layers/attention_norm/scale", _LAYER + "input_layernorm.weight", "D", "D"),
    Rule("layers/attention/query/kernel", _ATTENTION + "q_proj.weight", "DHK", "HK D"),
    Rule("layers/attention/key/kernel", _ATTENTION + "k_proj.weight", "DJK", "JK D"),
    Rule("layers/attention/value/kernel", _ATTENTION + "v_proj.weight", "DJK", "JK D"),
    Rule("layers/attention/output/kernel", _ATTENTION + "o_proj.weight", "HKD", "D HK"),
    Rule(
        "layers/feed_forward_norm/scale",
        _LAYER + "post_attention_layernorm.weight",
        "D",
        "D",
    ),
    Rule(
        "layers/feed_forward/gate/kernel",
        _FEED_FORWARD + "gate_proj.weight",
        "DF",
        "F D",
    ),
    Rule(
        "layers/feed_forward/up/kernel", _FEED_FORWARD + "up_proj.weight", "DF", "F D"
    ),
    Rule(
        "layers/feed_forward/down/kernel",
        _FEED_FORWARD + "down_proj.weight",
        "FD",
        "D F",
    ),
    Rule("final_norm/scale", "model.norm.weight", "D", "D"),
)
_BIASES = (
    Rule("layers/attention/query/bias", _ATTENTION + "q_proj.bias", "HK", "HK"),
    Rule("layers/attention/key/bias", _ATTENTION + "k_proj.bias", "JK", "JK"),
    Rule("layers/attention/value/bias", _ATTENTION + "v_proj.bias", "JK", "JK"),
)
_QK_NORMS = (
    Rule("layers/attention/query_norm/scale", _ATTENTION + "q_norm.weight", "K", "K"),
    Rule("layers/attention/key_norm/scale", _ATTENTION + "k_norm.weight", "K", "K"),
)
_HEAD = (Rule("head/kernel", HEAD_NAME, "VD", "V D"),)


def rules(arch: Architecture) -> tuple[Rule, ...]:
    """Returns the rows of the table that this architecture has."""
    biases = _BIASES if arch.attention_bias else ()
    norms = _QK_NORMS if arch.qk_norm else ()
    return _ALWAYS + biases + norms + (() if arch.tied_head else _HEAD)


def stored_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of a checkpoint, by name."""
    return {
        name: rule.stored_shape(arch)
        for rule in rules(arch)
        for name in rule.names(arch)
    }


def get(tree: dict[str, Any], path: str) -> Any:
    """Returns the leaf of a nested dict at "a/b/c"; KeyError where there is none."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def put(tree: dict[str, Any], path: str, leaf: Any) -> None:
    """Sets the leaf of a nested dict at "a/b/c"."""
    *parents, last = path.split("/")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = leaf


def paths(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the path of every leaf of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}/")
        else:
            yield prefix + key
