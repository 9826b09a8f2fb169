"""Finds a model's directory, on this machine or on the Hugging Face hub."""

import pathlib
import re
import shutil
from typing import Any, Protocol, runtime_checkable

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Belongs to the tokenizer too: it names further end tokens.
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
    GENERATION_CONFIG,
)


@runtime_checkable
class Savable(Protocol):
    """What a tokenizer must offer to travel with a model."""

    def save(self, directory: str) -> Any:
        """Writes the tokenizer's files and its chat template."""


class TokenizerFiles:
    """The tokenizer of a directory, to be copied file by file as it is."""

    def __init__(self, directory: str | pathlib.Path):
        self.directory = pathlib.Path(directory)
        if not any((self.directory / name).is_file() for name in TOKENIZER_FILES[:2]):
            raise ValueError(
                f"{directory} holds no tokenizer: neither {TOKENIZER_FILES[0]} nor "
                f"{TOKENIZER_FILES[1]}"
            )

    def save(self, directory: str | pathlib.Path) -> None:
        """Copies the files to another directory."""
        copy_files(self.directory, pathlib.Path(directory), TOKENIZER_FILES)


def copy_files(
    source: pathlib.Path, target: pathlib.Path, names: tuple[str, ...]
) -> None:
    """Copies those of the files and directories that `source` has."""
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        elif (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def resolve(
    path_or_hub_id: str | pathlib.Path, *, weights: bool = True
) -> pathlib.Path:
    """Returns the local directory of a model, fetching it from the hub if need be.

    Args:
      path_or_hub_id: where it is.
      weights: fetch them too, and not only what describes the model.

    Raises:
      ValueError: it is neither a directory nor a hub id, or it cannot be fetched.
    """
    name = str(path_or_hub_id)
    if not name:
        raise ValueError("there is no directory '': give a directory or a hub id")
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
        return path
    if "://" in name:
        raise ValueError(f"{name!r} is not local: copy it to a local directory first")
    if path.exists():
        raise ValueError(f"{name!r} is a file: give the model's directory")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ValueError(f"there is no directory {name!r}")
    # Only here: it takes a moment to import.
    import huggingface_hub
    from huggingface_hub import errors

    try:
        fetched = huggingface_hub.snapshot_download(
            name,
            allow_patterns=["*.json", *TOKENIZER_FILES, "additional_chat_templates/*"]
            + ["*.safetensors"] * weights,
            ignore_patterns=["original/*", "onnx/*", "consolidated*"],
        )
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"there is no directory {name!r}, and fetching it from the hub failed "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Check the name, "
            "the network and, for a gated model, HF_TOKEN; or fetch it on another "
            "machine and give its directory"
        ) from error
    return pathlib.Path(fetched)
