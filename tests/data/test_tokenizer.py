"""Tokens round-trip, prompts get one BOS, and what is saved loads everywhere."""

import json
import pathlib
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from grpo_jax.data import characters, world_words
from grpo_jax.data.tokenizer import load_tokenizer

EVERYTHING = "\n" + "".join(map(chr, range(32, 127)))
SOLUTION = "<think>7-8=9;9+3=2</think><answer>2</answer>"
MANY_BYTES = "café,  日本語 日本\t\r\n\x00\x7f\xa0\xad 🙂🙂 naïve ÿĀ"
CHAT = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}]"
    "{{ message.content }}{% endfor %}{% if add_generation_prompt %}[go]{% endif %}"
)


@pytest.fixture(scope="module")
def built_in():
    return load_tokenizer("characters")


@pytest.fixture
def directory(tmp_path):
    """Makes a Hugging Face directory whose vocabulary also has <s>, 103."""

    def make(*, prepends: bool = False, generation=None, **settings) -> str:
        folder = tmp_path / "model"
        folder.mkdir()
        fast = characters.build()
        fast.add_special_tokens(["<s>"])
        if prepends:
            fast.post_processor = tokenizers.processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", 103)]
            )
        fast.save(str(folder / "tokenizer.json"))
        settings = {**characters.SETTINGS, "split_special_tokens": False, **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        if generation is not None:
            (folder / "generation_config.json").write_text(json.dumps(generation))
        return str(folder)

    return make


@pytest.fixture
def byte_level(tmp_path):
    """Makes a directory with a byte-level BPE and added tokens of all kinds."""

    def make(decoder=None) -> str:
        fast = tokenizers.Tokenizer(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoder or decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>"],
            show_progress=False,
        )
        fast.train_from_iterator([MANY_BYTES, SOLUTION] * 4, trainer)
        fast.add_special_tokens(["</s>"])
        fast.add_tokens(["<think>", "< a é >", "<｜end｜>", "Ã©<Ġ>"])
        fast.save(str(tmp_path / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    "text",
    ["", EVERYTHING, SOLUTION, "  two  spaces \n\n", "<eos><pad><unk>", "<thin<think>"],
)
def test_built_in_round_trips(built_in, text):
    assert built_in.decode(built_in.encode(text)) == text


def test_built_in_has_one_token_a_character_and_tag(built_in):
    assert len(built_in.encode(EVERYTHING)) == 96
    assert len(set(built_in.encode(EVERYTHING))) == 96
    assert built_in.encode("<think></think><answer></answer>") == [3, 4, 5, 6]
    assert len(built_in.encode(SOLUTION)) == 4 + 5 + 1 + 5 + 1
    assert (built_in.pad_id, built_in.eos_ids, built_in.vocab_size) == (0, (1,), 103)


def test_decode_leaves_special_tokens_out(built_in):
    assert built_in.decode([0, 3, 1, 4, 2]) == "<think></think>"


def test_the_one_of_search_agents_has_more_tags(built_in, tmp_path):
    own = load_tokenizer("search-characters")
    assert own.vocab_size == built_in.vocab_size + 4
    text = "".join(characters.SEARCH_TAGS)
    assert own.encode(text) == list(range(3, 11))
    assert own.decode(own.encode(EVERYTHING + text)) == EVERYTHING + text
    own.save(tmp_path)
    assert load_tokenizer(str(tmp_path)).encode(text) == own.encode(text)


def test_the_one_of_the_world_has_its_words(built_in, tmp_path):
    own = load_tokenizer("search-words")
    words = world_words.WORDS
    assert len(set(words)) == len(words)
    assert own.vocab_size == built_in.vocab_size + 4 + len(words)
    assert own.encode("".join(characters.SEARCH_TAGS)) == list(range(3, 11))
    assert [own.encode(word) for word in words] == [
        [11 + at] for at in range(len(words))
    ]
    assert [own.decode([id]) for id in own.encode("job of Core Farm?")] == (
        ["job ", "of ", "Core", " Farm", "?"]
    )
    own.save(tmp_path)
    again = load_tokenizer(str(tmp_path))
    for text in (EVERYTHING, "Coreshome  of Ada Coresides: ;", "<thin<think> Penn"):
        assert own.decode(own.encode(text)) == text
        assert again.encode(text) == own.encode(text)
        spelled = b"".join(own.token_bytes()[id] for id in own.encode(text))
        assert spelled == text.encode()


def test_bytes_of_characters_and_tags(built_in):
    spelled = built_in.token_bytes()
    assert spelled[:8] == [b"", b"", b"", *map(str.encode, characters.TAGS), b"\n"]
    assert b"".join(spelled[7:]) == EVERYTHING.encode()
    assert len(spelled) == built_in.vocab_size


def test_bytes_of_a_byte_level_tokenizer(byte_level):
    tokenizer = load_tokenizer(byte_level())
    spelled = tokenizer.token_bytes()
    assert len(spelled) == tokenizer.vocab_size == 305
    ids = tokenizer.encode(MANY_BYTES)
    assert b"".join(spelled[id] for id in ids) == MANY_BYTES.encode()
    assert max(len(spelled[id]) for id in ids) > 3
    assert {bytes([byte]) for byte in range(256)} <= set(spelled)
    (think,) = tokenizer.encode("<think>")
    assert (spelled[think], spelled[0], spelled[think - 1]) == (b"<think>", b"", b"")
    # Beyond the alphabet of the bytes a token is its own text; within it, it is not.
    assert spelled[-3:] == ["< a é >".encode(), "<｜end｜>".encode(), "é< >".encode()]


def test_decode_is_the_bytes_of_the_tokens(byte_level):
    tokenizer = load_tokenizer(byte_level())
    spelled = tokenizer.token_bytes(vocab_size=312)
    assert spelled[305:] == [b""] * 7
    rng = np.random.default_rng(0)
    rows = [[id] for id in range(312)] + list(rng.integers(312, size=(1000, 12)))
    # Where most ids are bytes of one character, some of them make one.
    rows += list(rng.choice(tokenizer.encode("日é🙂<think></s>"), size=(1000, 12)))
    for row in rows:
        text = b"".join(spelled[id] for id in row).decode(errors="replace")
        assert tokenizer.decode(row) == text


def test_bytes_are_the_callers_to_change(built_in):
    built_in.token_bytes()[5] = b"changed"
    assert built_in.token_bytes(vocab_size=1)[5] == b"<answer>"


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        (decoders.Metaspace(), "Metaspace"),
        (decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]), "Sequence"),
    ],
)
def test_bytes_of_a_tokenizer_that_decodes_in_context(byte_level, decoder, name):
    path = byte_level(decoder)
    with pytest.raises(ValueError, match=f"{path} decodes by {name}.*byte-level BPE"):
        load_tokenizer(path).token_bytes()


def test_unknown_character_is_named(built_in):
    with pytest.raises(ValueError, match="no token for 'é', at character 3 of 'café'"):
        built_in.encode("café")


def test_saved_built_in_loads_equal(built_in, tmp_path):
    built_in.save(tmp_path / "saved")
    fast = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    loaded = load_tokenizer(str(tmp_path / "saved"))
    text = EVERYTHING + SOLUTION + "<eos>"
    assert fast(text, add_special_tokens=False)["input_ids"] == built_in.encode(text)
    assert loaded.encode(text) == built_in.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_ids, loaded.pad_id) == (built_in.eos_ids, built_in.pad_id)
    assert loaded.vocab_size == built_in.vocab_size
    with pytest.raises(ValueError, match="no token for 'é'"):
        loaded.encode("é")


def test_plain_prompt(built_in):
    rendered = built_in.render(r"\frac{1}{2}?", template="{question} {x}: {question}")
    assert rendered == r"\frac{1}{2}? {x}: \frac{1}{2}?"
    with_system = {"system_prompt": "Be brief.", "template": "Q: {question}"}
    assert built_in.render("1?", **with_system) == "Be brief.\n\nQ: 1?"
    expected = built_in.encode("Be brief.\n\nQ: 1?")
    assert built_in.encode_prompt("1?", **with_system) == expected


@pytest.mark.parametrize("prepends", [False, True])
def test_chat_prompt_has_one_bos(directory, prepends):
    path = directory(prepends=prepends, bos_token="<s>", chat_template=CHAT)
    tokenizer = load_tokenizer(path)
    options = {"system_prompt": "S", "use_chat_template": True}
    assert tokenizer.render("Q", **options) == "<s>[system]S[user]Q[go]"
    assert tokenizer.encode_prompt("Q", **options).count(103) == 1
    without = tokenizer.render("Q", use_chat_template=True)
    assert without == "<s>[user]Q[go]"


@pytest.mark.parametrize(
    ("prepends", "settings", "expected"),
    [
        (False, {"bos_token": "<s>"}, "Q"),
        (True, {"bos_token": "<s>"}, "<s>Q"),
        (False, {"bos_token": "<s>", "add_bos_token": True}, "<s>Q"),
        (False, {}, "Q"),
    ],
)
def test_plain_prompt_has_the_bos_that_the_tokenizer_adds(
    directory, prepends, settings, expected
):
    tokenizer = load_tokenizer(directory(prepends=prepends, **settings))
    assert tokenizer.render("Q") == expected
    assert tokenizer.encode_prompt("Q").count(103) == expected.count("<s>")
    assert 103 not in tokenizer.encode("Q")


def test_no_chat_template_names_the_directory_and_the_flag(directory):
    path = directory()
    with pytest.raises(ValueError) as error:
        load_tokenizer(path).render("Q", use_chat_template=True)
    assert path in str(error.value)
    assert "config.task.use_chat_template=false" in str(error.value)


def test_chat_template_that_refuses(directory):
    template = "{{ raise_exception('System role not supported') }}"
    tokenizer = load_tokenizer(directory(chat_template=template))
    with pytest.raises(ValueError, match=r"System role.*config\.task\.system_prompt"):
        tokenizer.render("Q", system_prompt="S", use_chat_template=True)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [(None, (1,)), ({}, (1,)), ({"eos_token_id": 5}, (1, 5))]
    + [({"eos_token_id": [6, 1, 5]}, (1, 6, 5))],
)
def test_end_tokens(directory, generation, expected):
    assert load_tokenizer(directory(generation=generation)).eos_ids == expected


def test_no_end_token(directory):
    with pytest.raises(ValueError, match="names no end token"):
        load_tokenizer(directory(eos_token=None))


def test_pad_is_the_end_token_where_there_is_none(directory):
    assert load_tokenizer(directory(pad_token=None)).pad_id == 1


def test_saved_directory_loads_equal(directory, tmp_path):
    path = directory(
        prepends=True,
        bos_token="<s>",
        chat_template=CHAT,
        generation={"eos_token_id": 5},
    )
    before = load_tokenizer(path)
    before.save(tmp_path / "export")
    before.save(path)  # onto itself
    after = load_tokenizer(str(tmp_path / "export"))
    fast = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "export"))
    message = [{"role": "user", "content": "Q"}]
    text = before.render("Q", use_chat_template=True)
    assert after.render("Q", use_chat_template=True) == text
    assert (
        fast.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        == text
    )
    assert after.encode(text) == before.encode(text)
    assert (after.eos_ids, after.render("Q")) == ((1, 5), "<s>Q")


def test_path_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no directory .*config\.policy"):
        load_tokenizer(str(tmp_path / "nowhere"))


def test_directory_without_a_tokenizer(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer\.json"):
        load_tokenizer(str(tmp_path))


def test_hub_id(monkeypatch, directory):
    path = directory()

    def download(name: str, allow_patterns: list[str]) -> str:
        assert "tokenizer.json" in allow_patterns
        if name != "org/model-1.5B":
            raise OSError("404")
        return path

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_tokenizer("org/model-1.5B").encode("\n") == [7]
    with pytest.raises(FileNotFoundError, match="org/other is no directory.*404"):
        load_tokenizer("org/other")


def test_loading_prints_nothing():
    code = "from grpo_jax.data.tokenizer import load_tokenizer as f; f('characters')"
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_the_digest_follows_the_files(built_in, directory):
    assert built_in.digest() == "characters"
    folder = pathlib.Path(directory())
    before = load_tokenizer(str(folder)).digest()
    (folder / "README.md").write_text("not of the tokenizer")
    assert load_tokenizer(str(folder)).digest() == before
    (folder / "chat_template.jinja").write_text(CHAT)
    assert load_tokenizer(str(folder)).digest() != before
