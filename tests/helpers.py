"""Small models and prompts that several test files need."""

import jax
import numpy as np

from grpo_jax import choices
from grpo_jax.policy import transformer
from grpo_jax.policy.presets import Architecture, RopeScaling
from grpo_jax.rollout.scheduler import Request, Scheduler

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
    params = transformer.init(arch, jax.random.key(seed))
    params["embedding"]["table"] = 20 * params["embedding"]["table"]
    return params


def view_of(arch: Architecture, params):
    return transformer.rollout_view(params, arch, choices.Dtype.FLOAT32)


def one_device_mesh():
    """A mesh of one device, whatever the number there is."""
    return jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )


def scheduler_of(arch: Architecture, mesh=None, **changes) -> Scheduler:
    options = dict(
        arch=arch,
        mesh=mesh or one_device_mesh(),
        dtype=choices.Dtype.FLOAT32,
        eos_ids=(EOS,),
        max_prompt_tokens=12,
        max_completion_tokens=20,
        chunk_steps=8,
        wave_rows=16,
    )
    return Scheduler(**{**options, **changes})


def requests_of(count: int, vocab: int, seed: int = 0, **changes) -> list[Request]:
    """Prompts of different lengths, four samples each."""
    rng = np.random.default_rng(seed)
    prompts = [
        rng.integers(4, vocab, rng.integers(1, 12)).tolist()
        for _ in range(-(-count // 4))
    ]
    return [Request(prompts[i // 4], i // 4, i % 4, **changes) for i in range(count)]


def abstract_like(state):
    """Shapes, dtypes and shardings of a state, without its arrays."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
