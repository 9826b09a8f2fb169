"""Every implementation computes what the XLA one does, and is chosen where it can run.

The fused kernels run on their own hardware only. Elsewhere the splash kernel is
interpreted, and both are lowered for their platforms, which needs no device.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from grpo_jax import choices
from grpo_jax.policy import attention, attention_kernels, chunked_attention, sharding
from grpo_jax.policy.attention_kernels import Hardware

Attention = choices.Attention
LENGTHS = [1, 7, 64, 130, 257]
# Query heads to each key-value head.
RATIOS = [1, 2, 4]
KEY_HEADS, HEAD_DIM = 2, 16
CPU, TPU = Hardware("cpu"), Hardware("tpu", splash=True)
AMPERE, HOPPER = Hardware("gpu", 8.0), Hardware("gpu", 9.0)

chunked = functools.partial(chunked_attention.causal, largest_block=64)
interpreted = functools.partial(attention_kernels.splash, interpret=True)


def inputs(tokens, ratio, *, rows=2, head_dim=HEAD_DIM, dtype=jnp.float32):
    """Queries, keys, values and the gradient of what comes out."""
    rng = np.random.default_rng(tokens)
    heads = (KEY_HEADS * ratio, KEY_HEADS, KEY_HEADS, KEY_HEADS * ratio)
    return [
        jnp.asarray(rng.normal(size=(rows, tokens, n, head_dim)), dtype) for n in heads
    ]


def with_gradients(attend):
    """(query, key, value, gradient) -> output and the three gradients."""

    def run(query, key, value, gradient):
        mixed, pull = jax.vjp(attend, query, key, value)
        return mixed, *pull(gradient)

    return jax.jit(run)


def check_equal(attend, arrays, atol):
    got = with_gradients(attend)(*arrays)
    wide = [x.astype(jnp.float32) for x in arrays]
    expected = with_gradients(attention.causal)(*wide)
    for name, mine, theirs in zip(
        ("output", "query", "key", "value"), got, expected, strict=True
    ):
        assert mine.dtype == arrays[0].dtype, name
        scale = max(1.0, float(jnp.abs(theirs).max()))
        np.testing.assert_allclose(
            mine.astype(jnp.float32), theirs, rtol=0, atol=atol * scale, err_msg=name
        )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_chunked_equals_xla(tokens, ratio):
    check_equal(chunked, inputs(tokens, ratio), 1e-5)


@pytest.mark.parametrize("tokens", [64, 257])
def test_chunked_equals_xla_in_bfloat16(tokens):
    """Against float32: the sums and the softmax may not be rounded on the way."""
    check_equal(chunked, inputs(tokens, 2, dtype=jnp.bfloat16), 1e-2)


def test_the_default_block_is_used_and_gives_the_same():
    check_equal(chunked_attention.causal, inputs(257, 2, rows=1), 1e-5)


def test_scores_far_from_zero_do_not_overflow():
    arrays = inputs(130, 2)
    arrays[0] = arrays[0] * 100
    check_equal(chunked, arrays, 1e-5)


@pytest.mark.parametrize(("tokens", "ratio"), [(7, 1), (130, 2), (257, 4)])
def test_interpreted_splash_equals_xla(tokens, ratio, monkeypatch):
    monkeypatch.setattr(attention_kernels, "SPLASH_BLOCK", 128)
    with jax.numpy_rank_promotion("allow"):
        check_equal(interpreted, inputs(tokens, ratio, rows=1), 1e-5)


@pytest.mark.parametrize(
    ("tokens", "largest", "multiple", "size"),
    [(1, 256, 8, 8), (256, 256, 8, 256), (257, 256, 8, 136), (640, 512, 128, 384)],
)
def test_blocks_are_even_with_little_padding(tokens, largest, multiple, size):
    assert chunked_attention.block_tokens(tokens, largest, multiple) == size


@pytest.mark.parametrize("attend", [chunked, interpreted], ids=["chunked", "splash"])
def test_the_future_changes_nothing(attend):
    query, key, value, _ = inputs(130, 2, rows=1)
    last = jnp.arange(130)[None, :, None, None] >= 70

    def run(query, key, value):
        return attend(query, key, value)[:, :70]

    def early(query, key, value):
        return run(query, key, value).sum()

    changed = [jnp.where(last, 9.0, x) for x in (query, key, value)]
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_array_equal(run(query, key, value), run(*changed))
        gradients = jax.grad(early, (0, 1, 2))(query, key, value)
    for gradient in gradients:
        assert (np.asarray(gradient)[:, 70:] == 0).all()
        assert (np.abs(np.asarray(gradient)[:, :70]).sum((2, 3)) > 0).any()


def temporary_bytes(attend, tokens):
    """Scratch memory of a forward and backward pass."""
    arrays = [
        jax.ShapeDtypeStruct((1, tokens, heads, 16), jnp.float32)
        for heads in (4, 2, 2, 4)
    ]
    compiled = with_gradients(attend).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_chunked_grows_with_the_length_of_xla_with_its_square():
    lengths = (1024, 2048, 4096)
    ours = [temporary_bytes(chunked, tokens) for tokens in lengths]
    assert 0 < ours[0] < ours[1] < 2.2 * ours[0]
    assert ours[2] < 2.2 * ours[1]
    reference = temporary_bytes(attention.causal, 2048)
    assert reference > 3.5 * temporary_bytes(attention.causal, 1024)
    assert reference > 10 * ours[1]


# The choice.


@pytest.mark.parametrize(
    ("hardware", "dtype", "head_dim", "expected"),
    [
        (CPU, "float32", 64, Attention.XLA_CHUNKED),
        (CPU, "bfloat16", 64, Attention.XLA_CHUNKED),
        (HOPPER, "bfloat16", 128, Attention.CUDNN),
        (HOPPER, "float16", 256, Attention.CUDNN),
        (HOPPER, "float32", 128, Attention.XLA_CHUNKED),
        (HOPPER, "bfloat16", 84, Attention.XLA_CHUNKED),
        (HOPPER, "bfloat16", 264, Attention.XLA_CHUNKED),
        (AMPERE, "bfloat16", 128, Attention.CUDNN),
        (AMPERE, "bfloat16", 136, Attention.XLA_CHUNKED),
        (Hardware("gpu", 7.5), "bfloat16", 128, Attention.XLA_CHUNKED),
        (Hardware("gpu"), "bfloat16", 128, Attention.XLA_CHUNKED),
        (TPU, "bfloat16", 128, Attention.SPLASH),
        (TPU, "float32", 64, Attention.SPLASH),
        (TPU, "bfloat16", 512, Attention.XLA_CHUNKED),
        (Hardware("tpu"), "bfloat16", 128, Attention.XLA_CHUNKED),
    ],
)
def test_auto_takes_the_best_that_can_run(hardware, dtype, head_dim, expected):
    chosen = attention_kernels.resolve(
        Attention.AUTO, hardware, dtype=dtype, head_dim=head_dim
    )
    assert chosen is expected


@pytest.mark.parametrize("choice", [Attention.XLA, Attention.XLA_CHUNKED])
@pytest.mark.parametrize("hardware", [CPU, HOPPER, TPU])
def test_what_runs_anywhere_is_taken_as_chosen(choice, hardware):
    chosen = attention_kernels.resolve(choice, hardware, dtype="bfloat16", head_dim=128)
    assert chosen is choice


@pytest.mark.parametrize(
    ("choice", "hardware", "dtype", "head_dim", "message"),
    [
        ("cudnn", CPU, "bfloat16", 128, "an NVIDIA GPU: this backend is cpu;"),
        ("cudnn", TPU, "bfloat16", 128, "an NVIDIA GPU: this backend is tpu;"),
        ("cudnn", Hardware("gpu"), "bfloat16", 128, "this one is another maker's;"),
        ("cudnn", Hardware("gpu", 7.5), "bfloat16", 128, "this one is .* 7.5;"),
        ("cudnn", HOPPER, "float32", 128, "policy.dtype=bfloat16: .* in float32;"),
        ("cudnn", HOPPER, "bfloat16", 84, "8 up to 256 .* head_dim is 84;"),
        ("cudnn", AMPERE, "bfloat16", 136, "8 up to 128 .* head_dim is 136;"),
        ("splash", CPU, "bfloat16", 128, "a TPU: this backend is cpu;"),
        ("splash", HOPPER, "bfloat16", 128, "a TPU: this backend is gpu;"),
        ("splash", Hardware("tpu"), "bfloat16", 128, "jax .* cannot import it;"),
        ("splash", TPU, "bfloat16", 512, "at most 256: .* head_dim is 512;"),
    ],
)
def test_a_choice_that_cannot_run_is_refused(
    choice, hardware, dtype, head_dim, message
):
    whole = f"config.policy.attention is {choice}, which needs .*{message} use auto"
    with pytest.raises(ValueError, match=whole):
        attention_kernels.resolve(
            Attention(choice), hardware, dtype=dtype, head_dim=head_dim
        )


def test_a_choice_reaches_its_implementation(monkeypatch):
    """Blocks are walked by a scan; the whole matrix needs none."""
    monkeypatch.setattr(attention_kernels, "this_hardware", lambda: CPU)

    def scans(tokens, choice):
        arrays = inputs(tokens, 2)[:3]
        attend = functools.partial(attention_kernels.causal, implementation=choice)
        return "scan[" in str(jax.make_jaxpr(attend)(*arrays))

    assert scans(64, Attention.AUTO) and scans(64, Attention.XLA_CHUNKED)
    assert not scans(257, Attention.XLA)
    with pytest.raises(ValueError, match="attention is cudnn, .* backend is cpu"):
        scans(64, Attention.CUDNN)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of a machine without one")
def test_this_machine_is_recognised():
    assert attention_kernels.this_hardware() == CPU


# On a mesh.

MESHES = [(8, 1, 1), (2, 2, 2)]


def on_mesh(mesh, attend, arrays):
    """The outputs, gathered, and the text of the compiled program."""
    split = NamedSharding(mesh, PartitionSpec(sharding.ROWS, None, "tensor"))
    with jax.set_mesh(mesh):
        arrays = [jax.device_put(x, split) for x in arrays]
        compiled = with_gradients(attend).lower(*arrays).compile()
        return jax.device_get(compiled(*arrays)), compiled.as_text()


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("split_by", ["compiler", "us"])
def test_split_rows_and_heads_give_the_same_and_send_nothing(shape, split_by):
    attend = chunked
    if split_by == "us":
        attend = functools.partial(attention_kernels.on_each_device, chunked)
    arrays = inputs(130, 2, rows=8)
    got, text = on_mesh(sharding.make_mesh(*shape), attend, arrays)
    for mine, theirs in zip(got, with_gradients(chunked)(*arrays), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text


def test_rows_that_do_not_divide_are_computed_everywhere():
    arrays = inputs(7, 2, rows=3)
    mesh = sharding.make_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        attend = functools.partial(attention_kernels.on_each_device, attention.causal)
        got = with_gradients(attend)(*arrays)
    expected = with_gradients(attention.causal)(*arrays)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


# The fused kernels: on their hardware where there is some, lowered where not.


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_cudnn_equals_xla(tokens, ratio):
    arrays = inputs(tokens, ratio, head_dim=64, dtype=jnp.bfloat16)
    check_equal(attention_kernels.cudnn, arrays, 2e-2)


@pytest.mark.skipif(jax.default_backend() != "tpu", reason="needs a TPU")
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("tokens", LENGTHS)
def test_splash_equals_xla(tokens, ratio):
    arrays = inputs(tokens, ratio, head_dim=64, dtype=jnp.bfloat16)
    check_equal(attention_kernels.splash, arrays, 2e-2)


@pytest.fixture
def lowered(monkeypatch):
    """(hardware, mesh) -> the program that AUTO gives there, forward and backward."""
    cudnn = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    if not hasattr(cudnn, "check_cudnn_version"):
        pytest.skip("this jax asks for the version of cuDNN elsewhere")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91_000)

    def lower(hardware, mesh=None):
        monkeypatch.setattr(attention_kernels, "this_hardware", lambda: hardware)
        arrays = inputs(130, 2, rows=8, head_dim=64, dtype=jnp.bfloat16)
        platform = {"gpu": "cuda", "tpu": "tpu"}[hardware.backend]
        with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
            traced = with_gradients(attention_kernels.causal).trace(*arrays)
            return traced.lower(lowering_platforms=(platform,)).as_text()

    with jax.numpy_rank_promotion("allow"):
        yield lower


def test_auto_lowers_to_cudnn_for_a_gpu(lowered):
    text = lowered(HOPPER)
    assert text.count("custom_call @__cudnn$fmhaSoftmax(") == 1
    assert text.count("custom_call @__cudnn$fmhaSoftmaxBackward(") == 1
    assert "CAUSAL" in text
    # The kernel reads [B, T, H, K] as it is: no scores, no repeated keys.
    assert "8x130x4x64xbf16" in text and "130x130" not in text


def test_auto_lowers_to_splash_for_a_tpu(lowered):
    text = lowered(TPU)
    for name in ("splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"):
        assert text.count(f'kernel_name = "{name}') == 1
    assert "8x4x256x128xbf16" in text and "130x130" not in text


@pytest.mark.parametrize(
    ("hardware", "local"), [(HOPPER, "2x130x2x64xbf16"), (TPU, "2x2x256x128xbf16")]
)
def test_on_a_mesh_each_device_runs_the_kernel_on_its_part(lowered, hardware, local):
    assert local not in lowered(hardware)
    text = lowered(hardware, sharding.make_mesh(2, 2, 2))
    assert "manual_computation" in text
    assert local in text
