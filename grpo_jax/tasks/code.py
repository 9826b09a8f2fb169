"""Programming from files: questions whose answers are Python programs, and tests."""

import ast
import functools
import json
import warnings
from typing import Any

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.data import sources
from grpo_jax.data.examples import Example
from grpo_jax.rewards.code import Limits
from grpo_jax.rewards.format import code_format, think_answer_format
from grpo_jax.rewards.pool import VerifierPool
from grpo_jax.rewards.tests_passed import all_passed, passed_fraction
from grpo_jax.tasks import rows
from grpo_jax.tasks.base import Task, failed_checks

# All tests of a program together, in times of one: 5 and 30 seconds, as in open-r1.
_TIMES = 6
# Beyond that and the last test, it is not the program's fault.
_GRACE_SECONDS = 10.0
_FORMATS = (
    'it must be {"test_cases": [{"input": ..., "output": ...}]}, a list of assert '
    "lines, or Python source with asserts"
)


def code(config: TaskConfig, reward: RewardConfig) -> Task:
    """Builds the task from `config`'s files; see `read_examples` for a row.

    "tests_passed" is the fraction of tests passed; "accuracy" is 1 where that is all of
    them, which is what pass@k counts. Programs are run, in processes with limits but
    not in a sandbox: see `grpo_jax/rewards/code.py`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file, a row or `validation_rows` is impossible.
    """
    train, validation, test = rows.read_splits(
        config, functools.partial(read_examples, config=config)
    )
    limits = Limits(
        test_seconds=reward.check_seconds,
        total_seconds=_TIMES * reward.check_seconds,
        memory_mb=reward.check_memory_mb,
    )
    pool = VerifierPool(
        reward.workers,
        check_seconds=limits.total_seconds + limits.test_seconds + _GRACE_SECONDS,
        batch_seconds=reward.batch_seconds,
        check_memory_mb=reward.check_memory_mb,
    )
    tests_passed = passed_fraction(pool, limits)
    return Task(
        name="code",
        train=train,
        validation=validation,
        test=test,
        rewards={
            "accuracy": all_passed(tests_passed),
            "tests_passed": tests_passed,
            "format": code_format,
            "code_format": code_format,
            "think_answer_format": think_answer_format,
        },
        take_counts=functools.partial(failed_checks, pool),
        close=pool.close,
    )


def read_examples(location: str, config: TaskConfig) -> list[Example]:
    """Returns one example a row, as `rows.read_examples` does.

    The reference column holds a row's tests, in one of these forms:

    - `{"language": "python", "test_cases": [{"type": "stdin_stdout", "input": ...,
      "output": ...}]}`, an object or its JSON (verifiable-coding-problems-python);
    - a list of assert lines or its JSON, each a test; the column `test_setup_code`, if
      there is one, is run before each (MBPP);
    - Python source with asserts, one test. Where it defines `check(candidate)`, that is
      called with what the column `entry_point` names (HumanEval).

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row without a question or without valid tests, with its index.
    """
    return rows.read_examples(location, config, functools.partial(_reference, config))


def _reference(config: TaskConfig, where: str, row: sources.Row) -> str:
    """Returns a row's tests as `rewards.code.fraction_passed` reads them."""
    column = config.reference_column
    try:
        tests = _tests(row[column], row)
    except ValueError as error:
        raise rows.bad_value(
            where, row, "reference_column", column, f"{error}; or remove the row"
        ) from error
    return json.dumps(tests, ensure_ascii=False)


def _tests(value: Any, row: sources.Row) -> list[dict[str, str]]:
    match _from_json(value):
        case {"test_cases": [_, *_] as cases, **others}:
            if others.get("language") not in ("python", None):
                raise ValueError("its language must be 'python'")
            return [_case(each) for each in cases]
        case [_, *_] as lines if all(isinstance(each, str) for each in lines):
            setup = row.get("test_setup_code") or ""
            return [{"code": _checked(f"{setup}\n{line}", row)} for line in lines]
        case str() as source if source.strip():
            return [{"code": _checked(source, row)}]
        case {"test_cases": []} | [] | "" | None:
            raise ValueError(f"it holds no test: {_FORMATS}")
    raise ValueError(_FORMATS)


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value  # Python source
    return parsed if isinstance(parsed, dict | list) else value


def _case(case: Any) -> dict[str, str]:
    match case:
        case {"input": str() as given, "output": str() as expected, **others}:
            if others.get("type") in ("stdin_stdout", None):
                return {"input": given, "output": expected}
    raise ValueError(
        f"its test case {case!r:.200} must have text as input and output, and the type "
        "'stdin_stdout' if it has one"
    )


def _checked(source: str, row: sources.Row) -> str:
    """Returns the code of a test that can fail, with the call that `check` needs."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes, for whoever wrote the test
            tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{_FORMATS}: it is not Python ({error})") from error
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if any(function.name == "check" for function in functions):
        entry_point = row.get("entry_point")
        if not isinstance(entry_point, str) or not entry_point.isidentifier():
            raise ValueError(
                "it defines check(candidate): name the function to check in a column "
                f"'entry_point', which is {entry_point!r:.200} now"
            )
        return f"{source}\ncheck({entry_point})\n"
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise ValueError(f"nothing is asserted: {_FORMATS}")
    return source
