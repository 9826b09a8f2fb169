"""Text to token ids and back, prompts included."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import huggingface_hub
import numpy as np
from tokenizers import decoders

from grpo_jax.data import characters

# The files that make a tokenizer, and the one that names further end tokens.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "generation_config.json",
)
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")

# The characters by which a byte-level BPE writes bytes: those of Latin-1 that print
# stand for their own code, and the others, in order, are written from code 256 on.
_PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = (byte for byte in range(256) if byte not in _PRINTED)
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(256 + index): byte for index, byte in enumerate(_OTHERS)
}


def load_tokenizer(path: str) -> "Tokenizer":
    """Loads a tokenizer.

    Args:
      path: a Hugging Face directory, a hub id, or the name of a built-in one
        of `characters.TOKENS_OF`.

    Raises:
      FileNotFoundError: neither a directory nor a hub id that can be fetched, or a
        directory without a tokenizer.
      ValueError: a tokenizer without a fast implementation or an end token.
    """
    transformers = _import_transformers()
    if path in characters.TOKENS_OF:
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=characters.build(path), **characters.SETTINGS
        )
        return Tokenizer(fast, path, None)
    folder = pathlib.Path(path) if os.path.isdir(path) else _download(path)
    if not any((folder / name).is_file() for name in _FILES[:2]):
        raise FileNotFoundError(
            f"{path} holds no {_FILES[0]} and no {_FILES[1]}: set "
            "config.policy.tokenizer to a directory that has them"
        )
    fast = transformers.AutoTokenizer.from_pretrained(str(folder))
    if not fast.is_fast:
        raise ValueError(
            f"the tokenizer of {path}, {type(fast).__name__}, has no fast "
            "implementation: convert it, so that the directory has a tokenizer.json"
        )
    return Tokenizer(fast, path, folder)


class Tokenizer:
    """A Hugging Face fast tokenizer that adds no token on its own.

    Attributes:
      name: the path it was loaded from.
      eos_ids: tokens that end a completion, the tokenizer's own first, then those of
        `generation_config.json`.
      pad_id: token that fills rows; the first end token where there is none.
      vocab_size: token ids are below this.
    """

    def __init__(self, fast: Any, name: str, folder: pathlib.Path | None):
        self.name = name
        self._fast = fast
        self._folder = folder
        self.eos_ids = _eos_ids(fast, name, folder)
        pad_id: int | None = fast.pad_token_id
        self.pad_id: int = self.eos_ids[0] if pad_id is None else pad_id
        self.vocab_size: int = max(fast.get_vocab().values()) + 1
        self._prefix: str = fast.bos_token if _adds_bos(fast, folder) else ""

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be written as a turn of a chat."""
        return bool(self._fast.chat_template)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`, and of nothing else.

        Raises:
          ValueError: the tokenizer has no token for a character.
        """
        encoding = self._fast(text, add_special_tokens=False, verbose=False)
        ids = list(encoding["input_ids"])
        if self._fast.unk_token_id is not None and self._fast.unk_token_id in ids:
            raise ValueError(self._unknown(text))
        return ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of token ids, special tokens left out."""
        return self._fast.decode(
            np.asarray(ids, np.int64).tolist(),
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )

    def token_bytes(self, vocab_size: int = 0) -> list[bytes]:
        """Returns what each token id adds to the bytes of the text that `decode` gives.

        `decode` of any ids is these bytes one after another, read as UTF-8: b"" for
        special tokens and for ids without a token.

        Args:
          vocab_size: ids of the model, where it has more than the tokenizer.

        Raises:
          ValueError: the text of a token depends on the tokens around it.
        """
        missing = vocab_size - len(self._token_bytes)
        return [*self._token_bytes, *[b""] * missing]

    @functools.cached_property
    def _token_bytes(self) -> list[bytes]:
        backend = self._fast.backend_tokenizer
        if isinstance(backend.decoder, decoders.ByteLevel):
            spell = _byte_level
        elif isinstance(backend.decoder, decoders.Fuse):
            spell = str.encode
        else:
            raise ValueError(
                f"the tokenizer of {self.name} decodes by "
                f"{type(backend.decoder).__name__}, not by bytes, so that no stop "
                "string can be found in its tokens: use a model with a byte-level BPE "
                "tokenizer, as Qwen, Llama 3 and DeepSeek have, or no stop strings"
            )
        added = backend.get_added_tokens_decoder()
        special = {id for id, token in added.items() if token.special}
        texts = (
            "" if id in special else backend.id_to_token(id)
            for id in range(self.vocab_size)
        )
        return [spell(text or "") for text in texts]

    def render(
        self,
        question: str,
        *,
        system_prompt: str = "",
        template: str = "{question}",
        use_chat_template: bool = False,
    ) -> str:
        """Returns the text of a prompt, as the policy reads it.

        A chat template writes every special token itself, the beginning of the text
        included. A plain prompt is the system prompt, an empty line and the filled
        template, after the beginning-of-text token where the tokenizer is set to add
        one.

        Args:
          question: what replaces `{question}` in `template`.
          system_prompt: instructions before the question; "" for none.
          template: the user's turn.
          use_chat_template: whether to use the tokenizer's chat template.

        Raises:
          ValueError: the tokenizer has no chat template, or its template refuses.
        """
        content = template.replace("{question}", question)
        if not use_chat_template:
            parts = (system_prompt, content) if system_prompt else (content,)
            return self._prefix + "\n\n".join(parts)
        if not self._fast.chat_template:
            raise ValueError(
                f"the tokenizer of {self.name} has no chat template: set "
                "config.task.use_chat_template=false, or put a chat_template.jinja "
                "beside its tokenizer.json"
            )
        return self._render_chat(system_prompt, content)

    def encode_prompt(
        self,
        question: str,
        *,
        system_prompt: str = "",
        template: str = "{question}",
        use_chat_template: bool = False,
    ) -> list[int]:
        """Returns the token ids of the prompt that `render` writes."""
        text = self.render(
            question,
            system_prompt=system_prompt,
            template=template,
            use_chat_template=use_chat_template,
        )
        return self.encode(text)

    def digest(self) -> str:
        """Returns the SHA-256 of the files; of the built-in tokenizer, its name."""
        if self._folder is None:
            return self.name
        there = (path for name in _FILES if (path := self._folder / name).is_file())
        texts = (path.name.encode() + path.read_bytes() for path in there)
        return hashlib.sha256(b"\0".join(texts)).hexdigest()

    def save(self, directory: str | os.PathLike[str]):
        """Writes the files from which `AutoTokenizer` loads this tokenizer.

        Files that were loaded are copied as they are: what one release of transformers
        writes, another may not read.
        """
        target = pathlib.Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        if self._folder is None:
            characters.build(self.name).save(str(target / "tokenizer.json"))
            settings = json.dumps(characters.SETTINGS, indent=2)
            (target / "tokenizer_config.json").write_text(settings + "\n")
            return
        for name in _FILES:
            source = self._folder / name
            if source.is_file() and source.resolve() != (target / name).resolve():
                shutil.copyfile(source, target / name)

    def _render_chat(self, system_prompt: str, content: str) -> str:
        import jinja2  # only templates need it, and it is slow to import

        system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages = [*system, {"role": "user", "content": content}]
        try:
            return self._fast.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise ValueError(
                f"the chat template of {self.name} refuses the prompt ({error}): where "
                "it knows no system role, set config.task.system_prompt='' and write "
                "the instructions in config.task.prompt_template"
            ) from error

    def _unknown(self, text: str) -> str:
        encoding = self._fast.backend_tokenizer.encode(text, add_special_tokens=False)
        start, end = encoding.offsets[encoding.ids.index(self._fast.unk_token_id)]
        return (
            f"the tokenizer of {self.name} has no token for {text[start:end]!r}, at "
            f"character {start} of {text[:200]!r}: remove it from the text, or set "
            "config.policy.tokenizer to a tokenizer that covers it"
        )


def _eos_ids(fast: Any, name: str, folder: pathlib.Path | None) -> tuple[int, ...]:
    more = _read_json(folder, "generation_config.json").get("eos_token_id")
    named = [fast.eos_token_id, *(more if isinstance(more, list) else [more])]
    ids = tuple(dict.fromkeys(id for id in named if id is not None))
    if not ids:
        raise ValueError(
            f"the tokenizer of {name} names no end token, so that no completion could "
            "ever end: set eos_token in its tokenizer_config.json"
        )
    return ids


def _adds_bos(fast: Any, folder: pathlib.Path | None) -> bool:
    """Whether plain text starts with the beginning token.

    transformers 5 may ignore `add_bos_token` where 4 obeys it, so it is read here.
    """
    if fast.bos_token_id is None:
        return False
    setting = _read_json(folder, "tokenizer_config.json").get("add_bos_token")
    if setting is not None:
        return bool(setting)
    return fast("a")["input_ids"][:1] == [fast.bos_token_id]


def _byte_level(token: str) -> bytes:
    """Returns the bytes that a byte-level decoder reads from a token."""
    try:
        return bytes(map(_BYTES.__getitem__, token))
    except KeyError:  # an added token, with a character that writes no byte
        return token.encode()


def _read_json(folder: pathlib.Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _download(path: str) -> pathlib.Path:
    """Fetches the tokenizer files of a hub id."""
    if not _HUB_ID.fullmatch(path):
        raise FileNotFoundError(
            f"there is no directory {path}: set config.policy.tokenizer (or "
            "config.policy.path) to one, to a hub id or to one of "
            f"{list(characters.TOKENS_OF)}"
        )
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(path, allow_patterns=list(_FILES))
        )
    except OSError as error:  # the hub's own errors are OSErrors
        raise FileNotFoundError(
            f"{path} is no directory, and as a hub id it could not be fetched ({error})"
        ) from error


def _import_transformers() -> Any:
    """Imports transformers without its advice to install torch."""
    with _environment("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"):
        import transformers
    return transformers


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
