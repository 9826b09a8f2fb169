"""Small models and prompts that several test files need."""

import dataclasses
import functools
import itertools
import math
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grpo_jax import choices
from grpo_jax.policy import sharding, transformer
from grpo_jax.policy.presets import Architecture, RopeScaling
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rollout import session
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.setup import Setup
from grpo_jax.rollout.texts import Request

TINY = Architecture(
    family="qwen3",
    vocab_size=48,
    num_layers=2,
    model_dim=32,
    feed_forward_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_context_tokens=128,
    qk_norm=True,
)
VARIANTS = {
    "qwen3": TINY,
    "qwen2": Architecture(
        **{**TINY.__dict__, "family": "qwen2", "qk_norm": False, "attention_bias": True}
    ),
    "llama": Architecture(
        **{
            **TINY.__dict__,
            "family": "llama",
            "qk_norm": False,
            "tied_head": False,
            "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 32),
        }
    ),
}
EOS = 3
# What TINY's tokens say: nothing, or one to four of three letters.
PIECES = [b""] * 4 + [
    "".join(letters).encode()
    for size in (1, 2, 3, 4)
    for letters in itertools.product("ab<", repeat=size)
][:44]
# Flags of a run that takes seconds, for tests of whole programs.
SMALL_QUICKSTART = (
    "--config=configs/quickstart.py",
    "--config.warm_start.steps=6",
    "--config.warm_start.batch_size=8",
    "--config.warm_start.demonstrations=64",
    "--config.task.arithmetic.train_problems=64",
    "--config.task.arithmetic.validation_problems=8",
    "--config.task.arithmetic.test_problems=8",
)


def params_of(arch: Architecture, seed: int = 0):
    """Random weights, spread enough that distributions are not flat."""
    params = jax.jit(transformer.init, static_argnums=0)(arch, jax.random.key(seed))
    params["embedding"]["table"] = 20 * params["embedding"]["table"]
    if "head" in params:
        params["head"]["kernel"] = 20 * params["head"]["kernel"]
    return params


def view_of(arch: Architecture, params):
    return transformer.rollout_view(params, arch, choices.Dtype.FLOAT32)


@dataclasses.dataclass(frozen=True)
class Model:
    """An architecture, its weights, and those as a rollout wants them."""

    arch: Architecture
    params: Any
    view: Any


@functools.cache
def model_of(variant: str = "qwen3") -> Model:
    params = params_of(VARIANTS[variant])
    return Model(VARIANTS[variant], params, view_of(VARIANTS[variant], params))


def one_device_mesh():
    """A mesh of one device, whatever the number there is."""
    return jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )


def setup_of(arch: Architecture, mesh=None, **changes) -> Setup:
    options = dict(
        arch=arch,
        mesh=mesh or one_device_mesh(),
        dtype=choices.Dtype.FLOAT32,
        attention=choices.Attention.XLA,
        eos_ids=(EOS,),
        max_prompt_tokens=12,
        max_completion_tokens=20,
        max_rows=16,
        chunk_steps=8,
    )
    return Setup(**{**options, **changes})


def requests_of(count: int, vocab: int, seed: int = 0, **changes) -> list[Request]:
    """Prompts of different lengths, four samples each."""
    rng = np.random.default_rng(seed)
    prompts = [
        rng.integers(4, vocab, rng.integers(1, 12)).tolist()
        for _ in range(-(-count // 4))
    ]
    return [Request(prompts[i // 4], i // 4, i % 4, **changes) for i in range(count)]


def session_of(
    model: Model, *, temperature: float = 4.0, stops=None, hold=False, **changes
) -> session.Session:
    """A session with changes to `setup_of`; cooler, TINY repeats its last token."""
    return session.Session(
        setup_of(model.arch, **changes),
        model.view,
        sampling=Sampling(temperature),
        key=jax.random.key(3),
        step=7,
        stops=stops,
        hold=hold,
    )


def spread(model: Model, mesh: jax.sharding.Mesh) -> Model:
    """The model with its view on the devices of a mesh."""
    with jax.set_mesh(mesh):
        places = sharding.param_shardings(mesh, model.params, axes=("tensor",))
        view = view_of(model.arch, jax.device_put(model.params, places))
    return dataclasses.replace(model, view=view)


def run_out(at: session.Session) -> session.Session:
    """Advances until no row is live or waits."""
    while at.active:
        at.advance()
    return at


@functools.partial(jax.jit, static_argnames="arch")
def _log_probs(params, arch, tokens, temperature):
    hidden = transformer.forward(params, arch, tokens)
    table = jax.nn.log_softmax(transformer.logits(params, hidden) / temperature)
    chosen = jnp.take_along_axis(table[:, :-1], tokens[:, 1:, None], axis=-1)
    return jnp.pad(chosen[..., 0], ((0, 0), (1, 0)))


def log_probs_of(model: Model, tokens, temperature: float = 4.0) -> jax.Array:
    """Log-probs of tokens, from one pass over whole rows."""
    return _log_probs(model.params, model.arch, tokens, temperature)


def check_log_probs(model: Model, rows: Trajectories, temperature: float = 4.0) -> int:
    """Compares what the sampler recorded with one pass over whole rows.

    Returns how many tokens were sampled.
    """
    tokens = np.pad(rows.tokens, ((0, -len(rows.tokens) % 32), (0, 0)))
    fresh = _log_probs(model.params, model.arch, tokens, temperature)
    sampled = rows.origins == Origin.SAMPLED
    np.testing.assert_allclose(
        rows.behavior_log_probs[sampled],
        np.asarray(fresh)[: len(sampled)][sampled],
        atol=1e-4,
    )
    assert not rows.behavior_log_probs[~sampled].any()
    past_end = np.arange(tokens.shape[1]) >= rows.lengths[:, None]
    np.testing.assert_array_equal(rows.origins == Origin.PAD, past_end)
    return int(sampled.sum())


def texts_of(rows: Trajectories) -> list[list[int]]:
    """The real tokens of each row."""
    pairs = zip(rows.tokens, rows.lengths, strict=True)
    return [row[:length].tolist() for row, length in pairs]


def abstract_like(state):
    """Shapes, dtypes and shardings of a state, without its arrays."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def collectives(compiled):
    """(in the entry computation, operation, largest array it moves) of a program."""
    found, entry = [], False
    for line in compiled.as_text().splitlines():
        if line.endswith("{") and not line.startswith(" "):
            entry = line.startswith("ENTRY")
        if match := re.search(r"= (.*?) (all-\w+|reduce-scatter|coll\w+-\w+)\(", line):
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            sizes = [math.prod(map(int, filter(None, x.split(",")))) for x in shapes]
            found.append((entry, match[2], max(sizes)))
    return found


def run_door(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a door as a user runs it, to its end, whatever that is."""
    return subprocess.run(
        [sys.executable, "-m", f"grpo_jax.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
