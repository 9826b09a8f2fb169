r"""Compares two policies problem by problem: difference, interval, p-value, tokens.

    python -m grpo_jax.compare runs/base runs/mine
    python -m grpo_jax.compare runs/mine/evaluation/aime24_000000.json \
        runs/mine/evaluation/aime24_000300.json --markdown=aime24.md

A and B are workdirs, of which the newest evaluation of each benchmark or split is
taken, or evaluation files. A positive difference means that B does better.
docs/evaluation.md says what the columns mean.
"""

import json
import pathlib

from absl import flags

from grpo_jax import doors
from grpo_jax.reporting.comparison import markdown, print_comparisons
from grpo_jax.reporting.files import write_atomically
from grpo_jax.trainer import comparison

_COMMON = flags.DEFINE_bool(
    "common", False, "Pair what both have where problems or prompts differ."
)
_CONFIDENCE = flags.DEFINE_float(
    "confidence", 0.95, "Of intervals.", lower_bound=0.5, upper_bound=0.999
)
_MARKDOWN = flags.DEFINE_string("markdown", "", "File for the table as Markdown.")
_JSON = flags.DEFINE_string("json", "", "File for every number.")


def main(argv: list[str]) -> None:
    """Compares, prints and writes."""
    a, b = map(pathlib.Path, argv[1:])
    rows = comparison.compare(a, b, confidence=_CONFIDENCE.value, common=_COMMON.value)
    print_comparisons(rows)
    if _MARKDOWN.value:
        write_atomically(pathlib.Path(_MARKDOWN.value), markdown(rows))
    if _JSON.value:
        text = json.dumps({"comparisons": rows}, indent=2, ensure_ascii=False)
        write_atomically(pathlib.Path(_JSON.value), text + "\n")


if __name__ == "__main__":
    doors.run(main, ("A", "B"))
