r"""Turns raw files of problems into a training set, and says what became of each row.

    python -m grpo_jax.curate --input=raw.jsonl --output=data/curated \
        --benchmarks=math500.jsonl --benchmarks=aime24.jsonl

Writes OUTPUT/data.jsonl, which the math task reads, OUTPUT/dropped.jsonl, with why and
what it collides with, and the data card OUTPUT/card.md. OUTPUT/stages keeps what each
stage decided: the same command goes on where it was stopped, and changed settings redo
what they affect. docs/curation.md describes the stages.

How often a policy solves each problem decides what is left with a configuration:

    python -m grpo_jax.curate --input=raw.jsonl --output=data/curated \
        --config=configs/gsm8k.py --config.policy.path=DIR --pass_rate_samples=8 \
        --min_pass_rate=0.1 --max_pass_rate=0.9
"""

import contextlib
import pathlib
import shlex
import sys

from absl import flags

from grpo_jax import doors
from grpo_jax.curation import output, pipeline
from grpo_jax.curation.noise import Noise
from grpo_jax.curation.pass_rates import Policy
from grpo_jax.curation.reading import Columns, parse_source
from grpo_jax.curation.settings import (
    FORMATS,
    Settings,
    parse_bands,
    parse_mixture,
)
from grpo_jax.reporting import curation
from grpo_jax.reporting.files import write_atomically

_INPUT = flags.DEFINE_multi_string(
    "input",
    [],
    "FILE or FILE=label: JSONL or Parquet, a directory, a glob or hub:dataset:split; "
    "give it again for each. The label names the source in the counts.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Directory to write.", required=True)
_COLUMNS = {
    "question": flags.DEFINE_string(
        "question_column", "", "Default: question, problem or prompt."
    ),
    "reference": flags.DEFINE_string(
        "reference_column",
        "",
        "Default: answer, final_answer, reference or expected_answer; without any, the "
        "last box of the solution.",
    ),
    "solution": flags.DEFINE_string(
        "solution_column", "", "Default: solution where there is one."
    ),
    "difficulty": flags.DEFINE_string(
        "difficulty_column", "", "Label or number. Default: the label of the input."
    ),
}
_BENCHMARKS = flags.DEFINE_multi_string(
    "benchmarks", [], "FILE or FILE=label with problems that must not be trained on."
)
_BENCHMARK_COLUMN = flags.DEFINE_string(
    "benchmark_question_column",
    "",
    "Default: the question column, or question, problem or prompt.",
)
_NGRAM = flags.DEFINE_integer(
    "ngram", 8, "Words in a row that collide with a benchmark.", lower_bound=1
)
_PHRASE = flags.DEFINE_integer(
    "phrase_count",
    0,
    "Let pass what shares only such words with a benchmark as this many problems have, "
    "and less than half of it. 0: drop it.",
    lower_bound=0,
)
_NEAR = flags.DEFINE_float(
    "near_duplicate",
    0.8,
    "Similarity of near duplicates, from 0 to 1. 0: only exact ones are dropped.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_KEEP = flags.DEFINE_multi_enum(
    "keep", [], [kind.value for kind in Noise], "Kinds of noise that are left in."
)
_ANSWER = flags.DEFINE_integer(
    "max_answer_characters", 100, "Longer answers are noise.", lower_bound=1
)
_BOXED = flags.DEFINE_bool("require_boxed", False, "Drop solutions without a box.")
_TOKENIZER = flags.DEFINE_string(
    "tokenizer", "", "Directory or hub id of the tokenizer that counts tokens."
)
_PROMPT_TOKENS = flags.DEFINE_integer(
    "max_prompt_tokens", 0, "Of a question. 0: no limit.", lower_bound=0
)
_SOLUTION_TOKENS = flags.DEFINE_integer(
    "max_solution_tokens", 0, "Of a solution. 0: no limit.", lower_bound=0
)
_CONFIG = doors.define_config()
_SAMPLES = flags.DEFINE_integer(
    "pass_rate_samples",
    0,
    "Completions of each problem by the policy of --config. 0: none.",
    lower_bound=0,
)
_MIN_RATE, _MAX_RATE = (
    flags.DEFINE_float(
        f"{name}_pass_rate",
        default,
        f"{name.capitalize()}imum of the samples that are right, itself included.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    for name, default in (("min", 0.0), ("max", 1.0))
)
_BANDS = flags.DEFINE_string(
    "difficulty_bands",
    "",
    "Difficulties by the pass rate at which they begin, as "
    '\'{"easy": 0.75, "medium": 0.25, "hard": 0}\'. Empty: they stay as they are.',
)
_MIXTURE = flags.DEFINE_string(
    "mixture",
    "",
    'Problems of each difficulty, as \'{"easy": 1000, "hard": 3000}\'. Empty: all.',
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the mixture.", lower_bound=0)
_FORMAT = flags.DEFINE_enum("format", FORMATS[0], FORMATS, "Of the data.")


def main(_: list[str]) -> None:
    """Curates, writes and prints."""
    settings = Settings(
        inputs=tuple(map(parse_source, _INPUT.value)),
        output=pathlib.Path(_OUTPUT.value),
        columns=Columns(**{kind: flag.value for kind, flag in _COLUMNS.items()}),
        benchmarks=tuple(map(parse_source, _BENCHMARKS.value)),
        benchmark_question_column=_BENCHMARK_COLUMN.value,
        ngram=_NGRAM.value,
        phrase_count=_PHRASE.value,
        near_duplicate=_NEAR.value,
        keep=tuple(map(Noise, _KEEP.value)),
        max_answer_characters=_ANSWER.value,
        require_boxed=_BOXED.value,
        tokenizer=_TOKENIZER.value,
        max_prompt_tokens=_PROMPT_TOKENS.value,
        max_solution_tokens=_SOLUTION_TOKENS.value,
        pass_rate_samples=_SAMPLES.value,
        min_pass_rate=_MIN_RATE.value,
        max_pass_rate=_MAX_RATE.value,
        difficulty_bands=parse_bands(_BANDS.value),
        mixture=parse_mixture(_MIXTURE.value),
        seed=_SEED.value,
        format=_FORMAT.value,
    )
    with _policy(settings) as policy:
        judged = pipeline.run(settings, policy)
    command = shlex.join(["python", "-m", "grpo_jax.curate", *sys.argv[1:]])
    facts = output.facts(settings, judged, command, policy)
    curation.print_counts(facts)
    path = output.write(settings, judged)
    write_atomically(settings.output / "card.md", curation.card(facts))
    print(path)


def _policy(settings: Settings) -> contextlib.AbstractContextManager[Policy | None]:
    """Returns the policy of --config, to be opened."""
    config = _CONFIG.value
    if not settings.pass_rate_samples:
        if config is not None:
            raise ValueError(
                "--config names a policy to sample: set --pass_rate_samples"
            )
        return contextlib.nullcontext()
    # Only here: other stages need no accelerator's libraries.
    from grpo_jax.trainer import pass_rates

    if config is not None and not config.task.train_path:
        # A run with this configuration trains on what is written now.
        config.task.train_path = str(settings.output / f"data.{settings.format}")
    return pass_rates.open_policy(
        doors.sealed(_CONFIG, show=False), settings.pass_rate_samples
    )


if __name__ == "__main__":
    doors.run(main)
