"""Writes the report of one or more workdirs as a self-contained HTML page.

    python -m grpo_jax.report --workdir=A [--workdir=B ...] [--output=FILE]

Works while a run is still going; several workdirs are compared.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from grpo_jax import doors
from grpo_jax.reporting.page import write_report

_WORKDIRS = flags.DEFINE_multi_string(
    "workdir", [], "Workdir of a run; give it again for each run to compare."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    "",
    "HTML file to write. Empty: WORKDIR/report.html, or for several runs "
    "comparison.html in the first workdir.",
)


def main(argv: Sequence[str]) -> None:
    """Writes the page and prints where it is."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}; use --workdir=DIRECTORY")
    if not _WORKDIRS.value:
        raise app.UsageError("--workdir is missing: name the workdir of a run")
    workdirs = [Path(name) for name in _WORKDIRS.value]
    # A comparison must not take the place of the first run's own report.
    name = "report.html" if len(workdirs) == 1 else "comparison.html"
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdirs[0] / name
    write_report(workdirs, output)
    print(output)


if __name__ == "__main__":
    doors.run(main)
