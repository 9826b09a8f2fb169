"""A group of configuration fields that is checked once and then frozen."""

import dataclasses
import difflib
import enum
import math
import typing
from typing import Any


class Section:
    """A group of fields that can be checked and frozen."""

    _sealed = False

    def __setattr__(self, name: str, value: Any):
        """Sets a declared field of an unsealed section."""
        if self._sealed:
            raise AttributeError(f"the configuration is sealed: cannot set {name!r}")
        names = [field.name for field in dataclasses.fields(self)]  # pyright: ignore
        if name not in names:
            raise AttributeError(unknown_key(name, names, type(self).__name__))
        object.__setattr__(self, name, value)

    def validate(self, path: str):
        """Raises ValueError where fields of this section are impossible."""

    def seal(self, path: str = "config"):
        """Checks every field, here and below, then forbids assignment.

        Raises:
          ValueError: a wrong type or an impossible value, with the field's full name.
        """
        for field in dataclasses.fields(self):  # pyright: ignore
            name, value = f"{path}.{field.name}", getattr(self, field.name)
            if isinstance(value, Section):
                value.seal(name)
            else:
                _check_type(name, value, field.type)
        self.validate(path)
        object.__setattr__(self, "_sealed", True)
        return self


def unknown_key(name: str, known: list[str], where: str) -> str:
    """Returns the message for a name that does not exist, with the nearest ones."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"use {known}"
    return f"{where} has no field {name!r}; {hint}"


def at_least(path: str, section: Section, **bounds: int | float):
    """Checks that each named field is at least its bound."""
    for name, bound in bounds.items():
        if getattr(section, name) < bound:
            raise ValueError(
                f"{path}.{name} is {getattr(section, name)}: use at least {bound}"
            )


def positive(path: str, section: Section, *names: str):
    """Checks that each named field is above 0."""
    for name in names:
        if not getattr(section, name) > 0:
            raise ValueError(
                f"{path}.{name} is {getattr(section, name)}: use a value above 0"
            )


def fraction(path: str, section: Section, *names: str):
    """Checks that each named field lies from 0 to 1."""
    for name in names:
        if not 0 <= getattr(section, name) <= 1:
            raise ValueError(
                f"{path}.{name} is {getattr(section, name)}: use a value from 0 to 1"
            )


def divides(divisor_name: str, divisor: int, total_name: str, total: int):
    """Checks that one number divides another; the message names both."""
    if total % divisor:
        raise ValueError(
            f"{divisor_name} is {divisor}: it must divide {total_name}, "
            f"which is {total}"
        )


def _check_type(name: str, value: Any, expected: Any):
    if expected is float and type(value) is int:
        return
    origin = getattr(expected, "__origin__", expected)
    if type(value) is bool and expected is not bool or not isinstance(value, origin):
        raise ValueError(
            f"{name} is {value!r} ({type(value).__name__}): it must be "
            f"{_describe(expected)}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}: use a finite number")
    if isinstance(value, dict):
        key_type, value_type = typing.get_args(expected)
        for key, each in value.items():
            _check_type(f"a name in {name}", key, key_type)
            _check_type(f"{name}[{key!r}]", each, value_type)


def _describe(expected: Any) -> str:
    if isinstance(expected, type) and issubclass(expected, enum.Enum):
        members = ", ".join(str(member) for member in expected)
        return f"one of {members}"
    return str(expected) if typing.get_args(expected) else expected.__name__
