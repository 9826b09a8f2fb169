"""Files the reports are made of and written to."""

import os
from importlib import resources
from pathlib import Path


def package_text(name: str) -> str:
    """Returns a text file that is installed beside this module."""
    return (resources.files("grpo_jax.reporting") / name).read_text("utf-8")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that a reader sees whole or not at all; text as UTF-8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    if isinstance(content, str):
        # A lone surrogate in a completion must not stop the report.
        content = content.encode(errors="replace")
    partial.write_bytes(content)
    os.replace(partial, path)
