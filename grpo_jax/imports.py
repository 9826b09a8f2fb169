"""Functions of a user's own, named in a configuration as "package.module:function"."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def import_function(
    name: str, field: str, known: Sequence[str] = ()
) -> Callable[..., Any]:
    """Returns the function that "package.module:function" names.

    Modules of the current working directory can be named too.

    Args:
      name: of the function.
      field: where a user wrote it, for messages.
      known: what else the field takes.

    Raises:
      ValueError: it is written otherwise, or there is no such module or function.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? It" if near else "it"
        others = f"one of {tuple(known)} or " if known else ""
        raise ValueError(
            f"{field} is {name!r}: {hint} must be {others}'package.module:function'"
        )
    if os.getcwd() not in sys.path:
        # Last, so that no file of the working directory hides an installed package.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists; something that it imports does not
        raise ValueError(
            f"{field} is {name!r}: there is no module {error.name!r}; start where it "
            "can be imported, or set PYTHONPATH"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        public = [item for item in vars(module) if not item.startswith("_")]
        raise ValueError(
            f"{field} is {name!r}: {module_name} has no function {attribute!r}; it has "
            f"{public}"
        )
    return function
