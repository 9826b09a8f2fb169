"""The memory that is planned, against what XLA says its programs take."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.policy import cache, costs, sharding, transformer
from grpo_jax.policy.attention_kernels import Hardware
from grpo_jax.policy.presets import Architecture, preset
from grpo_jax.records import TrainBatch
from grpo_jax.rollout import engine
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.trainer import memory
from grpo_jax.trainer.memory import Footprint
from grpo_jax.trainer.optimizer import make_optimizer, make_schedule
from grpo_jax.trainer.scorer import Scorer
from grpo_jax.trainer.step import Update, abstract_state, grpo_loss
from tests import helpers

# Many compilations: not for every commit.
pytestmark = pytest.mark.system

CPU = Hardware("cpu")
F32, BF16 = choices.Dtype.FLOAT32, choices.Dtype.BFLOAT16
TOLERANCE = 0.15


def arch_of(**sizes) -> Architecture:
    usual = dict(
        family="qwen3",
        vocab_size=8192,
        num_layers=3,
        model_dim=256,
        feed_forward_dim=768,
        num_heads=8,
        num_kv_heads=4,
        head_dim=32,
        max_context_tokens=4096,
    )
    return Architecture(**{**usual, **sizes})


def footprint_of(
    arch: Architecture,
    prompts: int,
    tokens: tuple[int, int],
    mesh: tuple[int, int, int] = (1, 1, 1),
    hardware: Hardware = CPU,
    kl_coef: float = 0.0,
    **policy,
) -> Footprint:
    """Two rows a prompt; `tokens` are the limits of prompts and completions."""
    config = c.TrainConfig(
        policy=c.PolicyConfig(**policy),
        rollout=c.RolloutConfig(
            prompts_per_step=prompts,
            group_size=2,
            max_prompt_tokens=tokens[0],
            max_completion_tokens=tokens[1],
        ),
        objective=c.ObjectiveConfig(kl_coef=kl_coef),
        # Evaluations as large as the rollouts of training.
        evaluation=c.EvaluationConfig(samples=2, greedy=False),
    )
    devices = mesh[0] * mesh[1] * mesh[2]
    return Footprint(config, arch, sharding.abstract_mesh(*mesh, devices), hardware)


RUNS = {
    "quickstart": footprint_of(
        preset("miniature", 77), 64, (12, 32), dtype=F32, remat=choices.Remat.FULL
    ),
    "large vocabulary": footprint_of(
        arch_of(family="qwen2", attention_bias=True, vocab_size=51_200, num_layers=6),
        8,
        (64, 192),
        dtype=F32,
        remat=choices.Remat.FULL,
    ),
    "reference": footprint_of(
        arch_of(qk_norm=True, tied_head=False),
        4,
        (64, 256),
        kl_coef=0.01,
        dtype=F32,
        remat=choices.Remat.NONE,
    ),
    "long rows": footprint_of(
        arch_of(qk_norm=True, vocab_size=1000, num_layers=4),
        2,
        (256, 768),
        dtype=F32,
        remat=choices.Remat.ATTENTION,
    ),
    "wide": footprint_of(
        arch_of(vocab_size=1000, feed_forward_dim=2048),
        16,
        (32, 96),
        dtype=F32,
        remat=choices.Remat.DOTS,
    ),
    "bfloat16": footprint_of(
        arch_of(vocab_size=16_384), 8, (32, 96), dtype=BF16, remat=choices.Remat.FULL
    ),
}


def bytes_of(compiled) -> int:
    """Arguments, results that are none of them, and temporaries."""
    used = compiled.memory_analysis()
    made = used.output_size_in_bytes - used.alias_size_in_bytes
    return used.argument_size_in_bytes + made + used.temp_size_in_bytes


def abstract(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def micro_batch(run: Footprint) -> TrainBatch:
    """All rows of a step, of full width."""
    rows, width = run.step_rows, run.widest
    values = abstract((rows, width), jnp.float32)
    return TrainBatch(
        tokens=abstract((rows, width), jnp.int32),
        origins=abstract((rows, width), jnp.uint8),
        prompt_lengths=abstract((rows,), jnp.int32),
        advantages=abstract((rows,), jnp.float32),
        loss_weights=values,
        behavior_log_probs=values,
        reference_log_probs=values if run.config.objective.kl_coef else None,
    )


def update_bytes(run: Footprint) -> tuple[float, float]:
    """What is held while gradients accumulate, and while the optimizer moves."""
    config, mesh = run.config, helpers.one_device_mesh()
    schedule = make_schedule(config.optimizer, 10)
    optimizer = make_optimizer(config.optimizer, schedule)
    params = transformer.abstract_params(run.arch)
    state = abstract_state(
        jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            params,
            sharding.param_shardings(mesh, params),
        ),
        optimizer,
        mesh,
    )
    scorer = Scorer(
        arch=run.arch,
        mesh=mesh,
        dtype=config.policy.dtype,
        remat=config.policy.remat,
        attention=config.policy.attention,
        temperature=1.0,
        completion_columns=config.rollout.max_completion_tokens,
        chunk_tokens=config.trainer.logits_chunk_tokens,
    )
    update = Update(scorer, grpo_loss(config.objective), optimizer, schedule, state)
    weights = jax.eval_shape(lambda x: transformer.cast(x, config.policy.dtype), params)
    micro = micro_batch(run)
    carry = jax.eval_shape(update.start, micro)
    accumulate = update.accumulate.lower(weights, carry, micro).compile()
    apply = update.apply.lower(state, carry).compile()
    # What is there but is no argument. The weights are one if they need no cast.
    beside = sum(run.state.values())
    beside -= run.state["parameters"] * (config.policy.dtype is F32)
    reference = run.state.get("reference", 0)
    return beside + bytes_of(accumulate), reference + bytes_of(apply)


def rollout_bytes(run: Footprint) -> tuple[float, float]:
    """What is held while a chunk is decoded, and while prompts are shown."""
    dtype = run.config.policy.dtype
    lines, n, limit = run.grids(run.step_rows)[-1]
    view = jax.eval_shape(
        lambda x: transformer.rollout_view(x, run.arch, dtype),
        transformer.abstract_params(run.arch),
    )
    kv = jax.eval_shape(
        lambda: cache.empty(run.arch, lines, n, run.prompt_slots, limit, dtype)
    )
    rows = lines * n
    cursor = engine.Cursor(
        pending=abstract((rows,), jnp.int32),
        live=abstract((rows,), jnp.bool_),
        remaining=abstract((rows,), jnp.int32),
        keys=abstract((rows, 2), jnp.uint32),
        stop_states=abstract((rows,), jnp.int32),
    )
    decoding = engine.decode_chunk.lower(
        view, kv, cursor, Sampling(1.0), None, arch=run.arch, eos_ids=(3,), steps=8
    )
    places = abstract((1, lines), jnp.int32)
    tokens = abstract((lines, run.prompt_slots), jnp.int32)
    showing = engine.prefill.lower(
        *(view, kv, tokens, places, places),
        arch=run.arch,
        attention=run.kernel,
    )
    beside = sum(run.state.values())
    decoded, shown = (bytes_of(x.compile()) for x in (decoding, showing))
    return beside + decoded, beside + shown


@pytest.mark.parametrize("name", RUNS)
def test_an_update_takes_what_is_planned(name):
    run = RUNS[name]
    planned = memory.total(run.update(run.step_rows * run.widest))
    assert planned == pytest.approx(max(update_bytes(run)), rel=TOLERANCE)


@pytest.mark.parametrize("name", RUNS)
def test_a_rollout_takes_what_is_planned(name):
    run = RUNS[name]
    planned = memory.total(run.rollout(run.step_rows))
    assert planned == pytest.approx(max(rollout_bytes(run)), rel=TOLERANCE)


def test_weights_are_split_over_devices_as_the_rules_say():
    arch = arch_of(tied_head=False, num_layers=2)
    whole = footprint_of(arch, 8, (8, 8)).weights(4)
    assert whole == pytest.approx(4 * costs.total_params(arch), rel=0.01)
    split = footprint_of(arch, 8, (8, 8), (2, 2, 2))
    assert split.weights(4) == whole / 4
    assert split.weights(4, fsdp=False) == whole / 2
    # A vocabulary that tensor does not divide stays whole on that axis.
    odd = dataclasses.replace(arch, vocab_size=8191)
    more = footprint_of(odd, 8, (8, 8), (1, 1, 2)).weights(4)
    assert more == 4 * (2 * 8191 * 256 + costs.matmul_params(arch) / 2)


def test_the_state_is_counted_once():
    run = footprint_of(arch_of(), 8, (8, 8), dtype=BF16, kl_coef=0.1)
    weights = run.weights(4)
    assert run.state == {
        "parameters": weights,
        "optimizer": 2 * weights,
        "reference": weights / 2,
    }
    assert "reference" not in footprint_of(arch_of(), 8, (8, 8)).state


def test_a_cache_holds_prompts_once_and_completions_for_every_row():
    gpu = Hardware("gpu", 9.0)
    run = footprint_of(arch_of(), 8, (64, 32), hardware=gpu, dtype=BF16)
    a_token = 2 * 3 * 4 * 32 * 2
    parts = run.rollout(16)["rollout"]
    assert parts["KV of prompts"] == 8 * 64 * a_token
    assert parts["KV of rows"] == 16 * 32 * a_token
    greedy = dataclasses.replace(run.config, evaluation=c.EvaluationConfig())
    parts = dataclasses.replace(run, config=greedy).rollout(16)["rollout"]
    assert parts["KV of prompts"] == 16 * 64 * a_token
    on_four = footprint_of(arch_of(), 8, (64, 32), (2, 1, 2), gpu, dtype=BF16)
    half = on_four.rollout(16)["rollout"]
    assert half["KV of rows"] == 16 * 32 * a_token / 4


def test_an_evaluation_with_longer_completions_is_planned_for():
    run = footprint_of(arch_of(), 8, (64, 32))
    evaluation = dataclasses.replace(run.config.evaluation, max_completion_tokens=128)
    longer = dataclasses.replace(run.config, evaluation=evaluation)
    longer = dataclasses.replace(run, config=longer)
    usual = run.rollout(16)["rollout"]["KV of rows"]
    assert longer.rollout(16)["rollout"]["KV of rows"] == 4 * usual
    assert longer.update(64) == run.update(64)


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("remat", choices.Remat)
@pytest.mark.parametrize("dtype", choices.Dtype)
def test_more_of_anything_takes_more(backend, remat, dtype):
    hardware = Hardware(backend, 9.0 if backend == "gpu" else 0.0, backend == "tpu")

    def totals(tokens=8192, rows=32, limits=(64, 192), **sizes):
        run = footprint_of(
            arch_of(**sizes), 64, limits, hardware=hardware, dtype=dtype, remat=remat
        )
        moments = run.rollout(rows), run.update(tokens)
        return np.array([memory.total(each) for each in moments])

    least = totals()
    assert totals(rows=64)[0] > least[0] and totals(tokens=16_384)[1] > least[1]
    assert totals(limits=(64, 512))[0] > least[0]
    for more in (
        dict(num_layers=4),
        dict(feed_forward_dim=1024),
        dict(vocab_size=16_384),
        dict(num_kv_heads=8),
        dict(tied_head=False),
    ):
        assert (totals(**more) > least).all(), more


def test_what_is_stored_grows_as_less_is_recomputed():
    order = [
        choices.Remat.FULL,
        choices.Remat.ATTENTION,
        choices.Remat.DOTS,
        choices.Remat.NONE,
    ]
    saved = [
        footprint_of(arch_of(), 64, (64, 192), dtype=F32, remat=remat).update(8192)[
            "loss"
        ]["activations"]
        for remat in order
    ]
    assert saved == sorted(saved) and len(set(saved)) == 4
    assert saved[0] == 3 * 8192 * 256 * 4  # the input of each block


def test_devices_share_rows_and_weights():
    arch = arch_of(num_layers=12)
    whole, data, fsdp = (
        memory.total(footprint_of(arch, 64, (64, 192), mesh, dtype=BF16).update(8192))
        for mesh in ((1, 1, 1), (4, 1, 1), (1, 4, 1))
    )
    assert fsdp < 0.5 * whole and fsdp < data < whole


@pytest.mark.parametrize(
    ("tokens", "mesh", "expected"),
    [
        (1000, (1, 1, 1), (3, 1000)),
        (1, (1, 1, 1), (1, 256)),  # a row that exceeds the budget is taken alone
        (1 << 30, (1, 1, 1), (128, 128 * 256)),  # there are no more rows
        (4096, (2, 2, 1), (4, 1024)),
    ],
)
def test_rows_and_slots_of_a_micro_batch(tokens, mesh, expected):
    assert footprint_of(arch_of(), 64, (64, 192), mesh).micro_batch(tokens) == expected
