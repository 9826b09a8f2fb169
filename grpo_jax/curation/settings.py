"""What a curated set is made of: the inputs, and the settings of every stage."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

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
    phrase_count: int = 0  # 0 is off
    near_duplicate: float = 0.8  # 0 is off
    keep: tuple[Noise, ...] = ()
    max_answer_characters: int = 100
    require_boxed: bool = False
    tokenizer: str = ""
    max_prompt_tokens: int = 0  # 0 is off
    max_solution_tokens: int = 0  # 0 is off
    pass_rate_samples: int = 0  # 0 is off
    min_pass_rate: float = 0.0
    max_pass_rate: float = 1.0
    # The least pass rate of each difficulty.
    difficulty_bands: Mapping[str, float] = dataclasses.field(default_factory=dict)
    mixture: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seed: int = 0
    format: str = "jsonl"

    @property
    def has_difficulties(self) -> bool:
        """Whether somebody asked for them."""
        return bool(self.columns.difficulty or self.mixture or self.difficulty_bands)

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
        self._check_pass_rates()

    def _check_pass_rates(self):
        bands = self.difficulty_bands
        limits = self.min_pass_rate > 0 or self.max_pass_rate < 1 or bands
        if limits and not self.pass_rate_samples:
            raise ValueError(
                "--min_pass_rate, --max_pass_rate and --difficulty_bands need samples "
                "of a policy: set --pass_rate_samples and --config"
            )
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(
                f"--min_pass_rate is {self.min_pass_rate} and --max_pass_rate "
                f"{self.max_pass_rate}: nothing lies between"
            )
        unknown = [label for label in self.mixture if label not in bands]
        if bands and unknown:
            raise ValueError(
                f"--mixture asks for difficulty {unknown[0]!r}: --difficulty_bands "
                f"names {list(bands)}"
            )


def parse_mixture(text: str) -> dict[str, int]:
    """Returns the counts of '{"easy": 1000, "hard": 3000}'; none for "".

    Raises:
      ValueError: it says something else.
    """
    counts = _parse_object(text)
    if counts is None or not all(
        type(count) is int and count > 0 for count in counts.values()
    ):
        raise ValueError(
            f"--mixture is {text!r}: write labels and counts above 0, like "
            '\'{"easy": 1000, "hard": 3000}\''
        )
    return counts


def parse_bands(text: str) -> dict[str, float]:
    """Returns the pass rates of '{"easy": 0.75, "hard": 0}', easiest first.

    Raises:
      ValueError: it says something else, two begin at one rate, or none begins at 0.
    """
    bands = _parse_object(text)
    rates = list((bands or {}).values())
    numbers = all(type(rate) in (int, float) and 0 <= rate <= 1 for rate in rates)
    if bands is None or not numbers or len(set(rates)) < len(rates):
        raise ValueError(
            f"--difficulty_bands is {text!r}: write labels and the pass rates, 0 to 1, "
            'at which they begin, like \'{"easy": 0.75, "medium": 0.25, "hard": 0}\''
        )
    if bands and 0 not in rates:
        raise ValueError(
            f"--difficulty_bands is {text!r}: one label must begin at 0, or a problem "
            "below all of them would have none; --min_pass_rate drops such problems"
        )
    return {label: bands[label] for label in sorted(bands, key=lambda x: -bands[x])}


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
