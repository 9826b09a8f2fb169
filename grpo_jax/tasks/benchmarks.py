r"""Evaluation sets as data: where each comes from, and how it is asked and sampled.

docs/evaluation.md holds the same as a table, with why.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from grpo_jax import choices
from grpo_jax.config import RewardConfig
from grpo_jax.data import columns, sources
from grpo_jax.data.examples import Example
from grpo_jax.rewards import extraction
from grpo_jax.rewards.accuracy import accuracy
from grpo_jax.rewards.search import WATCHED, search_rewards
from grpo_jax.rewards.tags import tag_set
from grpo_jax.tasks.base import Task, failed_checks
from grpo_jax.tasks.corpus import documents_of, with_evidence
from grpo_jax.tasks.math import verifier
from grpo_jax.tasks.multihop import examples_of, read_questions

# The user's turn, without a system prompt. As in open-rs the last line holds the box;
# the words are not theirs.
PROMPT = (
    "Solve this mathematics problem clearly and without detours. Reason step by step. "
    "The last line must state the final answer, just the number or expression, in "
    "\\boxed{}.\n\n{question}"
)
# Of reasoning models: a temperature of 0 makes them repeat themselves.
TEMPERATURE, TOP_P = 0.6, 0.95

_QUESTIONS = (*columns.QUESTION, "Problem", "Question")
_REFERENCES = (*columns.REFERENCE, "Answer")
_LABEL = re.compile(r"\w[\w.-]*")

# From what the reference column holds, as text, to what the verifier compares with.
Gold = Callable[[str], str]


def _aime(answer: str) -> str:
    """Returns a whole number without leading zeros."""
    if not re.fullmatch(r"\d{1,3}", answer):
        raise ValueError("an AIME answer is a whole number from 0 to 999")
    return str(int(answer))


def _minerva(answer: str) -> str:
    """Returns LaTeX: some answers name NumPy's functions, one is cut by stray dollars.

    The questions name the units, and the verifier does not ask for them.
    """
    return re.sub(r"\bnp\.(?=[a-z])", r"\\", answer).replace("$ $", "")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A set of problems.

    Attributes:
      name: of the evaluation, and of its files.
      location: as `sources.read_rows` takes it.
      problems: how many it has; 0 is not known.
      samples: completions of each problem, so that chance is small beside the number
        of problems.
      max_completion_tokens: longest completion; 0 is that of the run.
      gold: reads the reference.
      search: questions of several hops, in the forms of `questions.py`. They are asked
        as the run asks, and answered in its episodes.
    """

    name: str
    location: str
    problems: int = 0
    samples: int = 4
    max_completion_tokens: int = 32768
    gold: Gold = extraction.after_hashes
    search: bool = False


def _search(name: str, location: str, problems: int, samples: int) -> Benchmark:
    return Benchmark(name, location, problems, samples, 0, search=True)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("aime24", "hub:HuggingFaceH4/aime_2024:train", 30, 64, gold=_aime),
        Benchmark("aime25", "hub:yentinglin/aime_2025:train", 30, 64, gold=_aime),
        Benchmark("amc23", "hub:knoveleng/AMC-23:train", 40, 32),
        Benchmark("math500", "hub:HuggingFaceH4/MATH-500:test", 500),
        Benchmark("minerva", "hub:knoveleng/Minerva-Math:train", 272, gold=_minerva),
        Benchmark("olympiadbench", "hub:knoveleng/OlympiadBench:train", 675),
        # Grade-school arithmetic: what is longer repeats itself.
        Benchmark("gsm8k", "hub:openai/gsm8k:main:test", 1319, 4, 8192),
        _search("hotpotqa", "hub:hotpotqa/hotpot_qa:distractor:validation", 7405, 1),
        _search("2wiki", "hub:framolfese/2WikiMultihopQA:validation", 12576, 1),
        _search("musique", "hub:dgslibisey/MuSiQue:musique_ans_v1.0_dev", 2417, 1),
        _search("bamboogle", "hub:chiayewken/bamboogle:test", 125, 8),
    )
}


def parse(text: str) -> Benchmark:
    """Returns the benchmark of NAME, NAME=location or label=location.

    Raises:
      ValueError: an unknown name, or a label that cannot name a file.
    """
    label, equals, location = text.partition("=")
    if not equals and label not in BENCHMARKS:
        raise ValueError(
            f"--benchmarks={text}: there is no benchmark {label!r}; use one of "
            f"{', '.join(BENCHMARKS)}, or label=FILE for problems of your own"
        )
    if not _LABEL.fullmatch(label) or (equals and not location):
        raise ValueError(
            f"--benchmarks={text}: write NAME, NAME=FILE or label=FILE, the label in "
            "letters, digits, dots, dashes and underscores"
        )
    known = BENCHMARKS.get(label, Benchmark(label, location))
    return dataclasses.replace(known, location=location or known.location)


def parse_all(texts: Sequence[str]) -> list[Benchmark]:
    """Returns the benchmarks of several texts, each once.

    Raises:
      ValueError: as `parse`, or a name that is given twice.
    """
    chosen = [parse(text) for text in texts]
    names = [benchmark.name for benchmark in chosen]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"--benchmarks names {name!r} twice: give each a label of its own"
            )
    return chosen


def read(benchmark: Benchmark) -> list[Example]:
    """Returns one example a row; its id is the row's index.

    Columns may have any of the usual names. Where none of them is a reference, it is
    the last box of the `solution`.

    Raises:
      FileNotFoundError: nothing is at the location.
      ValueError: no usable column, or a row without a question or an answer.
    """
    rows = sources.read_rows(benchmark.location)
    there = columns.names(rows)
    remedy = "rename one of its columns, which are"
    question = columns.find(benchmark.location, there, _QUESTIONS, remedy)
    wanted = (*_REFERENCES, "solution")
    reference = columns.find(benchmark.location, there, wanted, remedy)
    examples = []
    for index, row in enumerate(rows):
        where = f"{benchmark.location}, row {index} (from 0)"
        asked = columns.text(row, question)
        if not asked:
            raise _unusable(where, question, row, "it must be text that asks something")
        answer = _answer(where, row, reference)
        if reference == "solution":
            answer = extraction.last_box(answer) or ""
        try:
            gold = benchmark.gold(answer)
        except ValueError as error:
            raise _unusable(where, reference, row, str(error)) from error
        if not gold:
            raise _unusable(where, reference, row, "it must state an answer")
        examples.append(Example(index, asked, gold, columns=row))
    return examples


def task(benchmark: Benchmark, tags: choices.Tags, reward: RewardConfig) -> Task:
    """Returns a benchmark's problems as a test, and what grades them.

    Pages that the rows of one to search for bring are its documents.

    Args:
      benchmark: nothing is trained on it.
      tags: of answers to questions of several hops.
      reward: limits of the verifier, and parameters of rewards.

    Raises:
      FileNotFoundError: nothing is at the location.
      ValueError: a row that cannot be used.
    """
    if benchmark.search:
        questions = read_questions(benchmark.location)
        documents = documents_of(questions)
        return Task(
            name=benchmark.name,
            train=(),
            validation=(),
            test=with_evidence(examples_of(questions), documents),
            rewards=search_rewards(tag_set(tags), reward.search),
            watched=WATCHED,
            documents=documents,
        )
    examples = read(benchmark)
    pool = verifier(reward)
    return Task(
        name=benchmark.name,
        train=(),
        validation=(),
        test=examples,
        rewards={"accuracy": accuracy(pool)},
        take_counts=functools.partial(failed_checks, pool),
        close=pool.close,
    )


def questions(location: str) -> list[str]:
    """Returns what the rows of a dataset ask; rows that ask nothing are left out.

    Raises:
      FileNotFoundError: nothing is at the location.
      ValueError: no column has a usual name.
    """
    rows = sources.read_rows(location)
    remedy = "rename one of its columns, which are"
    name = columns.find(location, columns.names(rows), _QUESTIONS, remedy)
    return [text for row in rows if (text := columns.text(row, name))]


def _answer(where: str, row: sources.Row, column: str) -> str:
    """Returns an answer as text; of several values, a list of formulas."""
    value = row.get(column)
    parts = [value] if not isinstance(value, list) else value
    texts = [columns.text({"x": part}, "x") for part in parts]
    if any(text is None for text in texts):
        raise _unusable(where, column, row, "it must be text, a number or a list")
    return ", ".join(text for text in texts if text)


def _unusable(where: str, column: str, row: Any, problem: str) -> ValueError:
    return ValueError(
        f"{where}: column {column!r} is {row.get(column)!r:.200}: {problem}"
    )
