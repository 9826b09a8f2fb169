"""Problems of files whose columns have all kinds of names."""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

from etils import epath

from grpo_jax.curation.problems import Drop, Problem, Verdict
from grpo_jax.data import columns as column_names
from grpo_jax.data import sources
from grpo_jax.rewards import extraction

# Names that are tried, in this order, where none is given.
_USUAL = {
    "question": column_names.QUESTION,
    "reference": column_names.REFERENCE,
    "solution": ("solution",),
    "difficulty": (),
}


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns; "" tries the usual ones.

    Where no column says how hard a row is, the label of its input does.
    """

    question: str = ""
    reference: str = ""
    solution: str = ""
    difficulty: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """An input: JSONL or Parquet, a directory, a glob or a split of the hub."""

    location: str
    label: str

    def digest(self) -> str:
        """Returns the SHA-256 of the contents of its files."""
        digest = hashlib.sha256()
        for file in sources.find_files(self.location):
            digest.update(file.read_bytes())
        return digest.hexdigest()


def parse_source(text: str) -> Source:
    """Returns the source of FILE or FILE=label; without a label, the file's name."""
    location, _, label = text.rpartition("=")
    if location and not epath.Path(text).exists():
        return Source(location, label or epath.Path(location).stem)
    return Source(text, epath.Path(text).stem)


def read_problems(
    inputs: Iterable[Source], columns: Columns
) -> tuple[list[Problem], list[Verdict]]:
    """Returns every row of the inputs, and why it cannot be used where it cannot.

    The answer of GSM8K's original form is what follows `####`. Where no column of
    references is named and none has a usual name, the answer is the last box of the
    solution.

    Raises:
      FileNotFoundError: nothing is at a location.
      ValueError: a file that is neither JSONL nor Parquet, or a column that none of an
        input's rows has.
    """
    problems, verdicts = [], []
    for source in inputs:
        scanned = _scan(source)
        names = _find_columns(source, scanned, columns)
        for where, row in scanned:
            if isinstance(row, ValueError):
                problems.append(Problem(where, source.label))
                verdicts.append(Drop("not_json", str(row)))
                continue
            problem, verdict = _problem(where, source, row, names)
            problems.append(problem)
            verdicts.append(verdict)
    return problems, verdicts


def read_benchmarks(
    inputs: Iterable[Source], column: str, otherwise: str = ""
) -> list[Problem]:
    """Returns the questions of evaluation sets.

    Args:
      inputs: where they are.
      column: of the question; "" tries `otherwise` and then the usual names.
      otherwise: how the training problems call it.

    Raises:
      FileNotFoundError: nothing is at a location.
      ValueError: a row that cannot be read or has no question: nothing would look for
        it in the training problems.
    """
    benchmarks = []
    for source in inputs:
        scanned = _scan(source)
        there = _column_names(scanned)
        usual = (otherwise, *_USUAL["question"])
        name = _find_column(source, there, "benchmark_question", column, usual)
        for where, row in scanned:
            if isinstance(row, ValueError):
                raise row
            question = column_names.text(row, name)
            if not question:
                raise ValueError(
                    f"{where}: column {name!r} is {row.get(name)!r:.200}: it must say "
                    "what the benchmark asks"
                )
            benchmarks.append(Problem(where, source.label, question))
    return benchmarks


_Scanned = list[tuple[str, sources.Row | ValueError]]


def _scan(source: Source) -> _Scanned:
    files = sources.find_files(source.location)
    scanned = [each for file in files for each in sources.scan_rows(file)]
    if all(isinstance(row, ValueError) for _, row in scanned):
        problem = scanned[0][1] if scanned else "it is empty"
        raise ValueError(f"no row of {source.location} can be read: {problem}")
    return scanned


def _column_names(scanned: _Scanned) -> list[str]:
    rows = (row for _, row in scanned if not isinstance(row, ValueError))
    return column_names.names(rows)


def _find_columns(source: Source, scanned: _Scanned, columns: Columns) -> Columns:
    """Returns the names of the columns in one input, "" for none."""
    there = _column_names(scanned)
    found = {}
    for kind, named in vars(columns).items():
        usual = _USUAL[kind]
        if kind == "question" or named or set(usual) & set(there):
            found[kind] = _find_column(source, there, kind, named, usual)
    if not {"reference", "solution"} & found.keys():  # the box could be the reference
        _find_column(source, there, "reference", "", _USUAL["reference"])
    return Columns(**found)


def _find_column(
    source: Source, there: Sequence[str], kind: str, named: str, usual: Sequence[str]
) -> str:
    """Returns the column of a name that was given, or of one of the usual names.

    Raises:
      ValueError: there is none.
    """
    wanted = [named] if named else usual
    remedy = f"set --{kind}_column to one of"
    return column_names.find(source.location, there, wanted, remedy)


def _problem(
    where: str, source: Source, row: sources.Row, columns: Columns
) -> tuple[Problem, Verdict]:
    names = dataclasses.asdict(columns)
    texts = {kind: column_names.text(row, name) for kind, name in names.items()}
    unreadable = next((kind for kind, text in texts.items() if text is None), "")
    question, reference, solution, difficulty = (text or "" for text in texts.values())
    if columns.reference:
        answer = extraction.after_hashes(reference)
    else:
        answer = extraction.last_box(solution) or ""
    if not columns.difficulty:
        difficulty = source.label
    problem = Problem(where, source.label, question, answer, solution, difficulty)
    if unreadable:
        name = names[unreadable]
        return problem, Drop("not_text", f"{name}: {row[name]!r:.200}")
    if not question or not answer:
        return problem, Drop("no_answer" if question else "no_question")
    return problem, None
