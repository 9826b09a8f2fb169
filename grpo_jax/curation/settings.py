"""What a curated set is made of: the inputs, and the settings of every stage."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from grpo_jax.curation.noise import Noise
from grpo_jax.curation.reading import Columns, Source

FORMATS = ("jsonl", "parquet")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Inputs, output and stages; the flags of the door say what each field does."""

    inputs: tuple[Source, ...]
    output: pathlib.Path
    columns: Columns = Columns()
    benchmarks: tuple[Source, ...] = ()
    benchmark_question_column: str = ""
    ngram: int = 8
    near_duplicate: float = 0.8  # 0 is off
    keep: tuple[Noise, ...] = ()
    max_answer_characters: int = 100
    require_boxed: bool = False
    tokenizer: str = ""
    max_prompt_tokens: int = 0  # 0 is off
    max_solution_tokens: int = 0  # 0 is off
    mixture: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0
    format: str = "jsonl"

    @property
    def has_difficulties(self) -> bool:
        """Whether somebody asked for them."""
        return bool(self.columns.difficulty or self.mixture)

    def __post_init__(self):
        """Checks what two fields must agree on."""
        if not self.inputs:
            raise ValueError("--input is missing: name a file, a directory or a glob")
        limits = self.max_prompt_tokens or self.max_solution_tokens
        if limits and not self.tokenizer:
            raise ValueError(
                "--max_prompt_tokens and --max_solution_tokens count the tokens of a "
                "tokenizer: set --tokenizer"
            )
        if self.tokenizer and not limits:
            raise ValueError(
                "--tokenizer counts tokens for a limit: set --max_prompt_tokens or "
                "--max_solution_tokens"
            )


def parse_mixture(text: str) -> dict[str, int]:
    """Returns the counts of '{"easy": 1000, "hard": 3000}'; none for "".

    Raises:
      ValueError: it says something else.
    """
    try:
        counts = json.loads(text or "{}")
    except ValueError:
        counts = None
    if not isinstance(counts, dict) or not all(
        type(count) is int and count > 0 for count in counts.values()
    ):
        raise ValueError(
            f"--mixture is {text!r}: write labels and counts above 0, like "
            '\'{"easy": 1000, "hard": 3000}\''
        )
    return counts
