"""A configuration as JSON, and where it differs from the defaults."""

import dataclasses
import enum
import json
from typing import Any

from grpo_jax.config import TrainConfig
from grpo_jax.sections import Section, unknown_key


def to_json(config: Section) -> str:
    """Returns the configuration as indented JSON, enums by value."""

    def plain(value: Any) -> Any:
        return value.value if isinstance(value, enum.Enum) else value

    fields = dataclasses.asdict(config)  # pyright: ignore
    return json.dumps(fields, default=plain, indent=2, ensure_ascii=False)


def changes(config: TrainConfig) -> list[str]:
    """Returns "config.section.field = value" for what differs from the defaults."""
    return _differences("config", config, TrainConfig())


def _differences(path: str, section: Any, default: Any) -> list[str]:
    lines = []
    for field in dataclasses.fields(section):
        name = f"{path}.{field.name}"
        value, usual = getattr(section, field.name), getattr(default, field.name)
        if isinstance(value, Section):
            lines += _differences(name, value, usual)
        elif value != usual:
            shown = value.value if isinstance(value, enum.Enum) else value
            lines.append(f"{name} = {shown}")
    return lines


def from_json(text: str) -> TrainConfig:
    """Builds a `TrainConfig`, not yet sealed, from what `to_json` wrote.

    Raises:
      ValueError: malformed JSON, an unknown field or an unknown choice.
    """
    return _fill(TrainConfig(), json.loads(text), "config")


def _fill(section: Any, values: Any, path: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{path} is {values!r}: it must be an object of its fields")
    fields = {field.name: field for field in dataclasses.fields(section)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(unknown_key(name, list(fields), path))
        current = getattr(section, name)
        if isinstance(current, Section):
            _fill(current, value, f"{path}.{name}")
        elif isinstance(current, enum.Enum):
            setattr(section, name, _choice(f"{path}.{name}", value, type(current)))
        else:
            setattr(section, name, value)
    return section


def _choice(name: str, value: Any, kind: type[enum.Enum]) -> enum.Enum:
    members = [member.value for member in kind]
    if value not in members:
        raise ValueError(f"{name} is {value!r}: use one of {members}")
    return kind(value)
