"""Model directories: parity with recorded logits, round trips, and every bad input."""

import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grpo_jax.policy import huggingface, presets, sharding, tensor_map, transformer

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
FAMILIES = ("qwen2", "qwen3", "llama3")


def fixture(family):
    return FIXTURES / f"tiny_{family}"


def load(directory, **options):
    arch = huggingface.read_architecture(directory)
    return arch, huggingface.load_params(directory, arch, **options)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture
def copy(tmp_path):
    """A model directory to spoil."""
    return pathlib.Path(shutil.copytree(fixture("qwen3"), tmp_path / "model"))


@pytest.fixture
def rewrite(copy):
    """Changes the tensors of `copy` with the reference implementation."""

    def change(edit):
        tensors = safetensors.numpy.load_file(copy / "model.safetensors")
        edit(tensors)
        safetensors.numpy.save_file(tensors, copy / "model.safetensors")
        return copy

    return change


def make_mesh():
    shape, names = (2, 2, 2), ("data", "fsdp", "tensor")
    types = (AxisType.Auto,) * 3
    return jax.make_mesh(shape, names, axis_types=types, devices=jax.devices()[:8])


# Parity.


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family):
    arch, params = load(fixture(family))
    expected = np.load(fixture(family) / "expected.npz")
    hidden = transformer.forward(params, arch, jnp.asarray(expected["tokens"]))
    error = np.abs(transformer.logits(params, hidden) - expected["logits"])
    assert error[expected["mask"] == 1].max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(family):
    arch, params = load(fixture(family))
    expected = np.load(fixture(family) / "expected.npz")

    @jax.jit
    def forward(tokens):
        return transformer.logits(params, transformer.forward(params, arch, tokens))

    new = np.asarray(expected["greedy_tokens"])[0]
    tokens = list(np.asarray(expected["greedy_prompt"])[0])
    if list(new[: len(tokens)]) == tokens:
        new = new[len(tokens) :]
    end = len(tokens) + len(new)
    for token in new:
        padded = np.zeros((1, end), np.int32)
        padded[0, : len(tokens)] = tokens
        tokens.append(int(np.argmax(forward(padded)[0, len(tokens) - 1])))
        assert tokens[-1] == token


# Round trips.


@pytest.mark.parametrize("max_shard_bytes", [10**9, 60_000, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_load_save_load_is_bit_exact(tmp_path, family, max_shard_bytes):
    arch, params = load(fixture(family))
    huggingface.save_pretrained(
        tmp_path / "out",
        params,
        arch,
        dtype="float32",
        source_directory=fixture(family),
        max_shard_bytes=max_shard_bytes,
    )
    new_arch, new_params = load(tmp_path / "out")
    assert new_arch == arch
    same(new_params, params)
    index = tmp_path / "out" / "model.safetensors.index.json"
    assert index.exists() == (max_shard_bytes < 10**9)
    assert not list(tmp_path.glob(".out*"))
    generation = (tmp_path / "out" / "generation_config.json").read_text()
    assert generation == (fixture(family) / "generation_config.json").read_text()


def test_bfloat16_round_trip_is_bit_exact(tmp_path):
    arch, params = load(fixture("qwen2"), dtype=jnp.bfloat16)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(params))
    huggingface.save_pretrained(tmp_path / "out", params, arch, dtype="bfloat16")
    same(load(tmp_path / "out", dtype=jnp.bfloat16)[1], params)
    # Read as master weights: the same numbers, in float32.
    wide = load(tmp_path / "out")[1]
    same(jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide), params)


def test_float16_is_read(rewrite):
    def halve(tensors):
        tensors.update({n: t.astype(np.float16) for n, t in tensors.items()})

    expected = load(fixture("qwen3"))[1]
    got = load(rewrite(halve))[1]
    same(
        got, jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), expected)
    )


def test_untied_head_round_trip(tmp_path):
    arch = dataclasses.replace(presets.preset("miniature", 32), tied_head=False)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32),
        transformer.abstract_params(arch),
    )
    huggingface.save_pretrained(tmp_path / "out", params, arch, dtype="float32")
    new_arch, new_params = load(tmp_path / "out")
    assert new_arch == arch
    same(new_params, params)


def test_reference_implementation_reads_what_is_written(tmp_path):
    arch, params = load(fixture("qwen3"))
    huggingface.save_pretrained(tmp_path / "out", params, arch, dtype="bfloat16")
    got = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    expected = safetensors.numpy.load_file(fixture("qwen3") / "model.safetensors")
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        rounded = tensor.astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(
            got[name].view(np.uint16), rounded.view(np.uint16)
        )
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_query_kernel_by_hand():
    arch, params = load(fixture("qwen3"))
    tensors = safetensors.numpy.load_file(fixture("qwen3") / "model.safetensors")
    stored = tensors["model.layers.2.self_attn.q_proj.weight"]  # [H*K, D]
    kernel = params["layers"]["attention"]["query"]["kernel"]  # [L, D, H, K]
    assert kernel[2, 5, 3, 7] == stored[3 * arch.head_dim + 7, 5]
    stored = tensors["model.layers.1.self_attn.o_proj.weight"]  # [D, H*K]
    kernel = params["layers"]["attention"]["output"]["kernel"]  # [L, H, K, D]
    assert kernel[1, 4, 9, 11] == stored[11, 4 * arch.head_dim + 9]


# Devices.


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_go_to_their_shardings(family):
    arch, whole = load(fixture(family))
    shardings = sharding.param_shardings(make_mesh(), transformer.abstract_params(arch))
    params = huggingface.load_params(fixture(family), arch, shardings=shardings)
    same(params, whole)
    jax.tree.map(lambda x, s: s == x.sharding or pytest.fail(str(s)), params, shardings)
    query = params["layers"]["attention"]["query"]["kernel"]
    assert query.addressable_shards[0].data.shape == (3, 24, 3, arch.head_dim)


def test_layers_can_be_sharded():
    arch, whole = load(fixture("qwen3"))
    mesh = jax.make_mesh((3,), ("l",), (AxisType.Auto,), devices=jax.devices()[:3])

    def split(path, _):
        stacked = path[0].key == "layers"
        return NamedSharding(mesh, PartitionSpec("l" if stacked else None))

    tree = jax.tree.map_with_path(split, transformer.abstract_params(arch))
    same(huggingface.load_params(fixture("qwen3"), arch, shardings=tree), whole)


def test_each_slice_is_read_once_and_no_more(monkeypatch):
    read = []
    whole = np.empty

    def record(shape, dtype):
        read.append(int(np.prod(shape)))
        return whole(shape, dtype)

    arch = huggingface.read_architecture(fixture("qwen3"))
    abstract = transformer.abstract_params(arch)
    tree = sharding.param_shardings(make_mesh(), abstract)
    monkeypatch.setattr(np, "empty", record)
    huggingface.load_params(fixture("qwen3"), arch, shardings=tree)
    assert sum(read) == sum(x.size for x in jax.tree.leaves(abstract))
    assert max(read) < arch.vocab_size * arch.model_dim


def test_sharded_weights_are_saved_whole(tmp_path):
    arch, whole = load(fixture("llama3"))
    tree = sharding.param_shardings(make_mesh(), transformer.abstract_params(arch))
    params = jax.device_put(whole, tree)
    huggingface.save_pretrained(tmp_path / "out", params, arch, dtype="float32")
    same(load(tmp_path / "out")[1], whole)


# Directories.


class Tokenizer:
    def save(self, directory):
        (pathlib.Path(directory) / "tokenizer.json").write_text("{}")


def test_tokenizer_travels(tmp_path, copy):
    arch, params = load(copy)
    (copy / "tokenizer.json").write_text("source")
    (copy / "chat_template.jinja").write_text("template")
    (copy / "notes.txt").write_text("private")

    def names(**options):
        out = tmp_path / "out"
        huggingface.save_pretrained(
            out, params, arch, dtype="float32", overwrite=True, **options
        )
        return {p.name for p in out.iterdir()} - {"config.json", "model.safetensors"}

    assert names() == set()
    assert names(tokenizer=Tokenizer()) == {"tokenizer.json"}
    kept = {"tokenizer.json", "chat_template.jinja", "generation_config.json"}
    assert names(source_directory=copy) == kept
    # The source's template does not belong to another tokenizer.
    other = names(source_directory=copy, tokenizer=Tokenizer())
    assert other == {"tokenizer.json", "generation_config.json"}
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_existing_directories_are_safe(tmp_path, copy):
    arch, params = load(copy)
    out = tmp_path / "out"
    out.mkdir()
    huggingface.save_pretrained(out, params, arch, dtype="float32")  # empty: fine
    with pytest.raises(ValueError, match="out exists and is not empty"):
        huggingface.save_pretrained(out, params, arch, dtype="float32")
    # Over itself, from itself.
    huggingface.save_pretrained(
        out, params, arch, dtype="float32", source_directory=out, overwrite=True
    )
    same(load(out)[1], params)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="home exists and is not a model directory"):
        huggingface.save_pretrained(
            tmp_path / "home", params, arch, dtype="float32", overwrite=True
        )


def test_failed_export_leaves_nothing(tmp_path, copy):
    class Broken:
        def save(self, directory):
            raise OSError("disk full")

    arch, params = load(copy)
    with pytest.raises(OSError, match="disk full"):
        huggingface.save_pretrained(
            tmp_path / "out", params, arch, dtype="float32", tokenizer=Broken()
        )
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_wrong_weights_are_not_exported(tmp_path):
    arch, params = load(fixture("qwen2"))
    other = dataclasses.replace(arch, feed_forward_dim=96)
    out = tmp_path / "out"
    message = r"params\['layers/feed_forward/down/kernel'\] has shape \(3, 112, 48\)"
    with pytest.raises(ValueError, match=message):
        huggingface.save_pretrained(out, params, other, dtype="float32")
    extra = {**params, "adapter": {"kernel": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"params\['adapter/kernel'\].*has\s+None"):
        huggingface.save_pretrained(out, extra, arch, dtype="float32")
    with pytest.raises(ValueError, match="dtype is float16: use float32 or bfloat16"):
        huggingface.save_pretrained(out, params, arch, dtype="float16")
    with pytest.raises(ValueError, match="is not local"):
        huggingface.save_pretrained("gs://bucket/x", params, arch, dtype="float32")


# Bad checkpoints.


def refused(directory, message):
    with pytest.raises(ValueError, match=message) as error:
        load(directory)
    assert str(directory) in str(error.value)


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    refused(copy, "holds no weights: neither model.safetensors nor")
    (copy / "adapter_model.safetensors").touch()
    refused(copy, "holds adapter_model.safetensors; an adapter must be merged")


def test_pickled_weights_are_never_opened(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(copy, r"only pickled weights \(pytorch_model.bin\).*Convert them")


@pytest.mark.parametrize("kept", [4, 100, 5_000, -1])
def test_truncated_file(copy, kept):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(copy, "is truncated|is not a safetensors file")


def test_damaged_file(copy):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content + b"more")
    refused(copy, "is damaged: 4 bytes after the last tensor")
    file.write_bytes(content[:8] + b"x" + content[9:])
    refused(copy, "has a damaged header")
    file.write_bytes(b"\xff" * 100)
    refused(copy, "is not a safetensors file")
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(copy, "is a Git LFS pointer")


def test_missing_shard(tmp_path):
    arch, params = load(fixture("qwen2"))
    out = tmp_path / "out"
    huggingface.save_pretrained(
        out, params, arch, dtype="float32", max_shard_bytes=60_000
    )
    shards = sorted(out.glob("*.safetensors"))
    shards[1].rename(out / "kept")
    refused(out, f"{shards[1].name} is missing: .* places .* tensors in it")
    shutil.copy(shards[0], shards[1])  # holds tensors, but others
    refused(out, rf"{shards[1].name} does not hold model\.")
    (out / "model.safetensors.index.json").write_text("{}")
    refused(out, "is not a safetensors index")


def test_missing_tensors(rewrite):
    def edit(tensors):
        for layer in range(3):
            del tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
        del tensors["model.norm.weight"]
        del tensors["model.embed_tokens.weight"]

    refused(rewrite(edit), r"lacks 5 of 35 tensors.*embed_tokens.weight.* and 1 more")


def test_unexpected_tensors(rewrite):
    def edit(tensors):
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(96, np.float32)

    refused(rewrite(edit), "holds 1 tensors that .* not have: .*q_proj.bias")


def test_misshaped_tensor(rewrite):
    def edit(tensors):
        tensors["model.norm.weight"] = np.zeros(47, np.float32)

    message = (
        r"model.norm.weight has shape \(47,\); the model's config.json says \(48,\)"
    )
    refused(rewrite(edit), message)


def test_unsupported_format(rewrite):
    def edit(tensors):
        tensors["model.norm.weight"] = np.zeros(48, np.int8)

    refused(rewrite(edit), "model.norm.weight is I8; only F32, F16, BF16")


def test_rotary_tables_and_a_copied_head_are_ignored(rewrite):
    def edit(tensors):
        table = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = table.copy()
        for layer in range(3):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = np.ones(8, np.float32)

    same(load(rewrite(edit))[1], load(fixture("qwen3"))[1])


def test_another_head_of_a_tied_model_is_refused(rewrite):
    def edit(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    refused(rewrite(edit), "lm_head.weight differs from model.embed_tokens.weight")


# Names.


def test_resolve_local(copy):
    assert huggingface.resolve(str(copy)) == copy
    with pytest.raises(ValueError, match="is a file: give the model's directory"):
        huggingface.resolve(copy / "config.json")


@pytest.mark.parametrize("name", ["/no/such/place", "./model", "a/b/c", "", "../x"])
def test_resolve_absent_directory(name):
    with pytest.raises(ValueError, match="there is no directory"):
        huggingface.resolve(name)


def test_resolve_remote_path():
    with pytest.raises(ValueError, match="is not local: copy it"):
        huggingface.resolve("gs://bucket/model")


def test_resolve_hub(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert huggingface.resolve("Qwen/Qwen3-0.6B") == tmp_path
    assert asked["name"] == "Qwen/Qwen3-0.6B"
    assert not any(
        p.endswith((".bin", ".pt", "*")) for p in asked["allow_patterns"][:2]
    )
    assert "*.safetensors" in asked["allow_patterns"]
    huggingface.resolve("Qwen/Qwen3-0.6B", weights=False)
    assert "*.safetensors" not in asked["allow_patterns"]

    def offline(name, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = r"fetching it from the hub failed \(LocalEntryNotFoundError: no network\)"
    with pytest.raises(ValueError, match=message):
        huggingface.resolve("Qwen/Qwen3-0.6B")


def test_tokenizer_files_of_a_directory_without_any(tmp_path):
    with pytest.raises(ValueError, match="holds no tokenizer"):
        huggingface.TokenizerFiles(tmp_path)


# The other implementation.


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_computes_the_same_from_the_export(tmp_path, family):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    arch, params = load(fixture(family))
    params = jax.tree.map(lambda x: x * 1.01, params)
    huggingface.save_pretrained(
        tmp_path / "out",
        params,
        arch,
        dtype="float32",
        source_directory=fixture(family),
        max_shard_bytes=60_000,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", torch_dtype=torch.float32
    )
    tokens = np.load(fixture(family) / "expected.npz")["tokens"][:1]
    with torch.no_grad():
        theirs = model(torch.tensor(tokens)).logits.numpy()
    hidden = transformer.forward(params, arch, jnp.asarray(tokens))
    ours = transformer.logits(params, hidden)
    assert np.abs(ours - theirs).max() < 1e-4


def test_paths_of_a_tree():
    tree = {}
    tensor_map.put(tree, "a/b", 1)
    tensor_map.put(tree, "a/c", 2)
    tensor_map.put(tree, "d", 3)
    assert tree == {"a": {"b": 1, "c": 2}, "d": 3}
    assert list(tensor_map.paths(tree)) == ["a/b", "a/c", "d"]
