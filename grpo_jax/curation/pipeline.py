"""Problems from raw files to a training set. Reads top to bottom as the method."""

import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from grpo_jax.curation import (
    answers,
    contamination,
    duplicates,
    lengths,
    mixture,
    noise,
    pass_rates,
    reading,
    stage_files,
)
from grpo_jax.curation.pass_rates import Policy
from grpo_jax.curation.problems import Problem, Verdict
from grpo_jax.curation.settings import Settings
from grpo_jax.curation.stage_files import Judged
from grpo_jax.data.tokenizer import load_tokenizer


class Stage(NamedTuple):
    """One judgement on every row, and what it depends on besides the rows.

    Attributes:
      name: of the stage and its file.
      judge: decides what goes on.
      settings: all that changes what it decides.
      describe: adds to the rows what they are judged by; None adds nothing.
    """

    name: str
    judge: Callable[[Sequence[Problem]], list[Verdict]]
    settings: Mapping[str, Any]
    describe: Callable[[Sequence[Problem]], list[Problem]] | None = None


def stages(settings: Settings, policy: Policy | None) -> Iterator[Stage]:
    """Yields the stages after `readable`, in order; what is switched off is absent.

    Raises:
      FileNotFoundError: a benchmark or the tokenizer is not there.
      ValueError: a benchmark or the tokenizer cannot be read.
    """
    if settings.require_boxed:
        yield _stage("has_box", answers.has_box)
    yield _stage("answer", answers.gradable)
    yield _stage(
        "noise",
        noise.noise,
        keep=sorted(settings.keep),
        max_answer_characters=settings.max_answer_characters,
    )
    yield _stage("duplicates", duplicates.exact)
    if settings.near_duplicate:
        threshold = settings.near_duplicate
        yield _stage("near_duplicates", duplicates.near, threshold=threshold)
    if settings.benchmarks:
        yield _stage(
            "benchmarks",
            contamination.contamination,
            benchmarks=reading.read_benchmarks(
                settings.benchmarks,
                settings.benchmark_question_column,
                settings.columns.question,
            ),
            ngram=settings.ngram,
            phrase_count=settings.phrase_count,
        )
    if settings.tokenizer:
        yield _stage(
            "lengths",
            lengths.lengths,
            tokenizer=load_tokenizer(settings.tokenizer),
            max_prompt_tokens=settings.max_prompt_tokens,
            max_solution_tokens=settings.max_solution_tokens,
        )
    if policy:
        yield _pass_rates(settings, policy)
    if settings.mixture:
        counts = dict(settings.mixture)
        yield _stage("mixture", mixture.mixture, counts=counts, seed=settings.seed)


def _stage(name: str, judge: Callable[..., list[Verdict]], **settings: object) -> Stage:
    return Stage(name, functools.partial(judge, **settings), settings)


def _pass_rates(settings: Settings, policy: Policy) -> Stage:
    limits = {"minimum": settings.min_pass_rate, "maximum": settings.max_pass_rate}
    bands = dict(settings.difficulty_bands)
    stage = _stage("pass_rates", pass_rates.within, **limits)

    def describe(problems: Sequence[Problem]) -> list[Problem]:
        path = stages_folder(settings) / "pass_rates.jsonl"
        measured = pass_rates.measure(problems, policy, path)
        return pass_rates.labelled(measured, bands) if bands else measured

    depends = {**stage.settings, "bands": bands, "policy": dict(policy.facts)}
    return stage._replace(settings=depends, describe=describe)


def stages_folder(settings: Settings) -> pathlib.Path:
    """Returns where stages leave what they decided."""
    return settings.output / "stages"


def run(settings: Settings, policy: Policy | None = None) -> list[Judged]:
    """Returns what every stage decided, `readable` first.

    A stage that an earlier run finished with the same rows and settings is read from
    OUTPUT/stages instead.

    Args:
      settings: inputs, output and stages.
      policy: of the stage of pass rates; None leaves it out.

    Raises:
      FileNotFoundError: nothing is at an input.
      ValueError: an input or a setting is impossible.
    """
    # A late stage that cannot begin says so before the early ones take their time.
    later = list(stages(settings, policy))
    start = time.monotonic()
    problems, verdicts = reading.read_problems(settings.inputs, settings.columns)
    seconds = time.monotonic() - start
    judged = [Judged("readable", problems, verdicts, seconds)]
    if judged[0].kept and not settings.difficulty_bands:
        mixture.check(judged[0].kept, settings.mixture)

    folder = stages_folder(settings)
    mark = stage_files.fingerprint_of(problems)
    files = [folder / "01_readable.jsonl"]
    stage_files.save(files[0], mark, judged[0])
    for number, stage in enumerate(later, start=2):
        if not judged[-1].kept:
            break
        mark = stage_files.fingerprint(mark, stage.name, stage.settings)
        files.append(folder / f"{number:02d}_{stage.name}.jsonl")
        start = time.monotonic()
        kept = judged[-1].kept
        if stage.describe:
            kept = stage.describe(kept)
        done = stage_files.load(files[-1], mark, kept)
        if done is None:
            verdicts = stage.judge(kept)
            seconds = time.monotonic() - start
            done = Judged(stage.name, kept, verdicts, seconds)
            stage_files.save(files[-1], mark, done)
        judged.append(done)
    for stale in set(folder.glob("[0-9][0-9]_*.jsonl")) - set(files):
        stale.unlink()  # of stages that are switched off now
    return judged
