"""Configurations from files and from the command line, and what is wrong with them."""

import dataclasses
import difflib
import importlib.util
import pathlib
import re
import traceback
from collections.abc import Sequence
from typing import Any

from grpo_jax import config_json, sections
from grpo_jax.config import TrainConfig

_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)")


def load(location: str) -> TrainConfig:
    """Returns the configuration, not yet sealed, of "FILE.py", "FILE.py:ARG" or JSON.

    The JSON is a run's config.json.

    Raises:
      ValueError: there is no such file, it fails, or it gives no configuration.
    """
    name, colon, argument = location.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        siblings = [str(each) for each in sorted(path.parent.glob("*.py"))]
        near = difflib.get_close_matches(name, siblings, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"there is no file {name!r}{hint}")
    if path.suffix == ".json":
        return _read_json(path)
    module = _run(path)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(
            f"{name} has no function get_config: define one that returns a "
            "grpo_jax.config.TrainConfig"
        )
    try:
        config = module.get_config(argument) if colon else module.get_config()
    except Exception as error:
        raise ValueError(_in_file(path, error)) from error
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"get_config of {name} returned a {type(config).__name__}: return a "
            "grpo_jax.config.TrainConfig"
        )
    return config


def of_workdir(workdir: pathlib.Path) -> TrainConfig:
    """Returns the sealed configuration of a run.

    Raises:
      FileNotFoundError: the directory holds no run.
      ValueError: its config.json is not of this version.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{workdir} holds no config.json: give --workdir of a run, or --config"
        )
    return _read_json(path).seal()


def check_overrides(arguments: Sequence[str]) -> None:
    """Raises ValueError at the first --config.section.field that does not exist."""
    for argument in arguments:
        if match := _OVERRIDE.match(argument):
            _check_field(match[1])
        elif argument == "--":
            return


def unknown_name(arguments: Sequence[str], name: str) -> str:
    """Returns what is wrong where a field has names and `name` is none of them."""
    matches = filter(None, map(_OVERRIDE.match, arguments))
    fields = [match[1] for match in matches if match[1].endswith(f".{name}")]
    return _set_all(f"config.{fields[0].removesuffix(f'.{name}')}", name)


def _set_all(path: str, name: str) -> str:
    return (
        f"--{path} has no such name: set all of it, as in "
        f"--{path}='{{\"{name}\": 1.0}}'"
    )


def _check_field(field: str) -> None:
    path, section = "config", TrainConfig()
    for name in field.split("."):
        if not dataclasses.is_dataclass(section):
            if isinstance(section, dict):
                # What ml_collections would take for an expression.
                if not (
                    rest := f"config.{field}".removeprefix(f"{path}.")
                ).isidentifier():
                    raise ValueError(_set_all(path, rest))
                return
            raise ValueError(f"--config.{field}: {path} is a value without fields")
        known = [each.name for each in dataclasses.fields(section)]
        if name not in known:
            # The right field of the wrong section is told before similar names.
            message = sections.unknown_key(name, known, path)
            if found := _elsewhere(name):
                message = f"{path} has no field {name!r}; there is {found}"
            raise ValueError(f"--config.{field}: {message}")
        path, section = f"{path}.{name}", getattr(section, name)
    if dataclasses.is_dataclass(section):
        names = [f"{path}.{each.name}" for each in dataclasses.fields(section)]
        raise ValueError(
            f"--config.{field}: {path} is a section; set one of its fields: "
            + ", ".join(names)
        )


def _elsewhere(name: str) -> str:
    """Returns where fields of exactly that name are, if they are anywhere."""
    paths = _paths(TrainConfig(), "config")
    found = [f"--{path}" for path in paths if path.rpartition(".")[2] == name]
    return " and ".join(found)


def _paths(section: Any, path: str) -> list[str]:
    found = []
    for field in dataclasses.fields(section):
        here, value = f"{path}.{field.name}", getattr(section, field.name)
        found += _paths(value, here) if dataclasses.is_dataclass(value) else [here]
    return found


def _read_json(path: pathlib.Path) -> TrainConfig:
    try:
        return config_json.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _run(path: pathlib.Path) -> Any:
    """Runs a Python file as a module of its own."""
    spec = importlib.util.spec_from_file_location("run_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(_in_file(path, error)) from error
    return module


def _in_file(path: pathlib.Path, error: Exception) -> str:
    """Returns what went wrong, and at which line of the file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    where = f"{path}, line {lines[-1]}" if lines else f"{path}"
    return f"{where}: {type(error).__name__}: {error}"
