"""Programs are run and graded; whatever they do costs only themselves."""

import json
import os
import pathlib
import time

import pytest

from grpo_jax.rewards import code
from grpo_jax.rewards import tests_passed as rewards
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.code import Limits, fraction_passed
from grpo_jax.rewards.pool import VerifierPool

LIMITS = Limits(test_seconds=20.0, total_seconds=60.0, memory_mb=512)
SHORT = Limits(test_seconds=1.0, total_seconds=60.0, memory_mb=512)
DOUBLE = [{"input": f"{n}\n", "output": f"{2 * n}\n"} for n in (1, 2, 30, 4)]


def block(source: str) -> str:
    return f"```python\n{source}\n```\n"


def fraction(source: str, tests: list[dict[str, str]], limits: Limits = LIMITS):
    return fraction_passed(block(source), json.dumps(tests), limits)


def asserting(*lines: str) -> list[dict[str, str]]:
    return [{"code": line} for line in lines]


# Standard input and output.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("print(2 * int(input()))", 1.0),
        ("print(3 * int(input()))", 0.0),
        ("n = int(input()); print(2 * n if n < 10 else 0)", 0.75),
        ("import sys; print(2 * int(sys.stdin.read()), end='  ')", 1.0),
        ("print(2 * int(open(0).read()), '\\n\\n')", 1.0),
        ("print('', 2 * int(input()))", 0.0),
        ("print(2 * int(input())); print('done')", 0.0),
        ("print(2 * int(input())); exit()", 1.0),
        ("print(2 * int(input())); raise SystemExit(1)", 0.0),
        ("if __name__ == '__main__': print(2 * int(input()))", 1.0),
        ("import os; os._exit(0)", 0.0),
        ("print(2 *", 0.0),
        ("print('\ud800\x00')", 0.0),
        ("", 0.0),
    ],
)
def test_output_is_compared(source, expected):
    assert fraction(source, DOUBLE) == expected


@pytest.mark.parametrize(
    ("printed", "output", "passed"),
    [
        (r"1 2 \n3\n", "1 2\n3", 1.0),
        (r"1 2\r\n3", "1 2\n3\n\n", 1.0),
        (r"1 2\n\n3", "1 2\n3", 0.0),
        (r"1 2", "1 2\n3", 0.0),
        ("grün ✓ 猫", "grün ✓ 猫\n", 1.0),
        (r"\x00\x80", "", 0.0),
        ("", "", 1.0),
    ],
)
def test_lines_without_trailing_blanks(printed, output, passed):
    source = f"import sys; sys.stdout.buffer.write('{printed}'.encode())"
    assert fraction(source, [{"input": "", "output": output}]) == passed


def test_unicode_goes_in_and_comes_out():
    test = {"input": "猫 ü\n", "output": "ü 猫\n"}
    assert fraction("print(*reversed(input().split()))", [test]) == 1.0


def test_a_large_input_that_is_not_read():
    assert fraction("print(1)", [{"input": "9" * 5_000_000, "output": "1"}]) == 1.0


# Which program counts.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (block("print(0)") + "No:\n" + block("print(1)"), 1.0),
        (block("print(1)") + "No:\n" + block("print(0)"), 0.0),
        ("<think>\n" + block("print(0)") + "</think>\n" + block("print(1)"), 1.0),
        ("<think>\n" + block("print(1)") + "</think>\nIt prints 1.", 0.0),
        ("<think>\n" + block("print(1)"), 0.0),
        (block("print(1)") + "```\n1\n```", 1.0),
        ("print(1)", 0.0),
        ("", 0.0),
    ],
)
def test_the_last_block_after_the_thoughts_counts(text, expected):
    reference = json.dumps([{"input": "", "output": "1"}])
    assert fraction_passed(text, reference, LIMITS) == expected


# Assertions.


def test_assertions_run_in_the_programs_scope():
    source = "def f(x):\n    return x + 1 if x else 0\nif __name__ == '__main__': 1 / 0"
    assert fraction(source, asserting("assert f(1) == 2", "assert f(0) == 1")) == 0.5
    check = "def check(f):\n    assert f(1) == 2\n    assert f(0) == {}\ncheck(f)"
    assert fraction(source, asserting(check.format(0))) == 1.0
    assert fraction(source, asserting(check.format(1))) == 0.0
    assert fraction(source, asserting("g(1)", "")) == 0.5


def test_classes_find_their_module():
    source = (
        "from __future__ import annotations\n"
        "import dataclasses, math, pickle\n"
        "@dataclasses.dataclass\n"
        "class P:\n    x: int = 3\n"
        "print(pickle.loads(pickle.dumps(P())).x, math.floor(1.5))\n"
    )
    assert fraction(source, [{"input": "", "output": "3 1"}]) == 1.0
    assert fraction(source, asserting("assert P() == P(3)")) == 1.0


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def f():\n    import os\n    os._exit(0)",
        "def f():\n    raise SystemExit",
        "import atexit, os; atexit.register(os._exit, 0)",
        "import os\nif os.fork(): os._exit(0)",
        "import os\nfor fd in range(20):\n"
        "    try: os.write(fd, b'passed' * 99)\n"
        "    except OSError: pass\n"
        "os._exit(0)",
        "import sys; print(sys.argv, vars(sys.modules['__main__'])); sys.exit()",
        "check = lambda *_: 1\ndef f(): return 0",
        "import builtins; builtins.AssertionError = ValueError\ndef f(): return 0",
    ],
)
def test_who_leaves_before_the_end_has_not_passed(source):
    assert fraction(source, asserting("assert f() == 1")) == 0.0


def test_printing_does_not_matter_to_assertions():
    source = "print('a' * 9999, flush=True)\ndef f(): print('b'); return 1"
    assert fraction(source, asserting("assert f() == 1")) == 1.0


# Limits.


@pytest.mark.system
@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(600)",
        "import signal, time\n"
        "for s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):\n"
        "    signal.signal(s, signal.SIG_IGN)\n"
        "while True: time.sleep(1)",
    ],
)
def test_a_program_without_end_fails_the_test(source):
    start = time.monotonic()
    assert fraction(source, DOUBLE[:1], SHORT) == 0.0
    assert time.monotonic() - start < 10.0


@pytest.mark.system
def test_only_the_slow_test_is_lost():
    source = "n = int(input())\nwhile n == 2: pass\nprint(2 * n)"
    limits = Limits(test_seconds=2.0, total_seconds=60.0, memory_mb=512)
    assert fraction(source, DOUBLE[:2], limits) == 0.5


@pytest.mark.system
def test_tests_share_their_time():
    limits = Limits(test_seconds=1.0, total_seconds=0.5, memory_mb=512)
    start = time.monotonic()
    assert fraction("while True: pass", DOUBLE * 25, limits) == 0.0
    assert time.monotonic() - start < 10.0


def test_who_prints_for_ever_or_takes_all_memory_fails():
    source = "while True: print('x' * 2**20)"
    assert fraction(source, [{"input": "", "output": "x"}]) == 0.0
    source = "open('f', 'wb').write(bytes(2**25))"
    assert fraction(source, [{"input": "", "output": ""}]) == 0.0
    source = "try: x = bytes(2**30)\nexcept MemoryError: print('none left')"
    assert fraction(source, [{"input": "", "output": "none left"}]) == 1.0


def test_a_child_does_not_outlive_its_test(tmp_path):
    source = f"""
import os, time
if os.fork() == 0:
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    time.sleep(600)
while not os.path.exists({str(tmp_path / "pid")!r}): time.sleep(0.01)
time.sleep(0.1)
print(1)
"""
    assert fraction(source, [{"input": "", "output": "1"}]) == 1.0
    wait_for_end((tmp_path / "pid").read_text())


def wait_for_end(pid: str):
    status = pathlib.Path("/proc", pid, "stat")
    end = time.monotonic() + 10.0
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_directory_is_empty_and_goes_away(tmp_path):
    source = (
        "import os\n"
        f"open({str(tmp_path / 'where')!r}, 'w').write(os.getcwd())\n"
        "print(os.listdir())\nopen('f', 'w').write('x')\nprint(os.listdir())"
    )
    assert fraction(source, [{"input": "", "output": "[]\n['f']"}] * 2) == 1.0
    assert not os.path.exists((tmp_path / "where").read_text())


def test_the_environment_is_not_handed_on(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    source = "import os; print(sorted(os.environ.keys() - {'HOME', 'LC_CTYPE'}))"
    names = "['OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH']"
    assert fraction(source, [{"input": "", "output": names}]) == 1.0


def test_installed_packages_can_be_imported():
    source = "import numpy; print(numpy.arange(3).sum())"
    limits = Limits(test_seconds=20.0, total_seconds=60.0, memory_mb=2048)
    assert fraction(source, [{"input": "", "output": "3"}], limits) == 1.0


# In the pool.


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(2, check_seconds=60.0, batch_seconds=120.0) as made:
        yield made


def completion(source: str, reference: str, prompt: str = "q") -> Completion:
    return Completion(prompt, block(source), reference, 1, True, 0, {})


MALFORMED = ["", "{", "[]", "3", '{"input": ""}', "[3]", '[{"input": ""}]']
MALFORMED += ['[{"input": 1, "output": "1"}]', '[{"code": null}]']


def test_rewards_run_a_batch_once(pool):
    fractions = rewards.passed_fraction(pool, LIMITS)
    accuracy = rewards.all_passed(fractions)
    batch = [
        completion("print(2 * int(input()))", json.dumps(DOUBLE)),
        completion("n = int(input()); print(2 * n % 60)", json.dumps(DOUBLE)),
        completion("print()", json.dumps(DOUBLE)),
        completion("print(2 * int(input()))", json.dumps(DOUBLE), "Go. <think>\n"),
        *[completion("print(1)", reference) for reference in MALFORMED],
    ]
    errors = len(MALFORMED)
    assert fractions(batch) == [1.0, 0.75, 0.0, 0.0] + [None] * errors
    assert accuracy(batch) == [1.0, 0.0, 0.0, 0.0] + [None] * errors
    counts = pool.take_counts()
    assert counts == {"ok": 4, "timeout": 0, "error": errors, "killed": 0}
    assert fractions(batch[:3]) == [1.0, 0.75, 0.0]
    assert accuracy(batch[1:2]) == [0.0]
    assert pool.take_counts()["ok"] == 4
    assert fractions([]) == []


@pytest.mark.system
def test_a_program_ends_though_its_worker_was_killed(tmp_path):
    path = tmp_path / "pid"
    source = f"""
import os, time
open({str(path)!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""
    limits = Limits(test_seconds=2.0, total_seconds=60.0, memory_mb=512)
    with VerifierPool(1, check_seconds=1.0) as killing:
        batch = [completion(source, '[{"code": "assert 1"}]')]
        assert rewards.passed_fraction(killing, limits)(batch) == [None]
        assert killing.take_counts()["timeout"] == 1
    wait_for_end(path.read_text())


def test_a_program_that_cannot_be_started_is_not_a_wrong_answer(monkeypatch):
    monkeypatch.setattr(code.sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError):
        fraction("print(1)", DOUBLE)
    monkeypatch.setattr(code.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"no program could be started .*code 1\)"):
        fraction("print(1)", DOUBLE)
