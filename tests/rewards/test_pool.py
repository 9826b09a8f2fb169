import gc
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from grpo_jax.rewards import worker as worker_module
from grpo_jax.rewards.pool import VerifierPool
from grpo_jax.rewards.worker import Status

pytestmark = pytest.mark.system

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
GENEROUS = 60.0  # no healthy check comes near it, however loaded the machine


@pytest.fixture
def pool():
    with VerifierPool(2, check_seconds=GENEROUS, batch_seconds=GENEROUS) as made:
        yield made


def alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def gone_within(pids, seconds):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def act(pool, *calls):
    return pool.map("tests.rewards.misbehaving:act", list(calls))


def process_ids(pool, checks=8):
    outcomes = pool.map("tests.rewards.misbehaving:process_id", [()] * checks)
    return {outcome.value for outcome in outcomes}


def test_values_come_in_order(pool):
    outcomes = pool.map("tests.rewards.misbehaving:double", [(i,) for i in range(200)])
    assert [outcome.value for outcome in outcomes] == [2 * i for i in range(200)]
    assert pool.map("tests.rewards.misbehaving:double", []) == []
    assert pool.take_counts() == {"ok": 200, "timeout": 0, "error": 0, "killed": 0}
    assert sum(pool.take_counts().values()) == 0


def test_a_function_of_a_module_is_as_good_as_its_path(pool):
    assert pool.map(os.path.basename, [("a/b",)])[0].value == "b"


def test_functions_alternate(pool):
    for _ in range(3):
        assert pool.map("tests.rewards.misbehaving:double", [(2,)] * 3)[0].value == 4
        assert pool.map("builtins:len", [("abc",)] * 3)[2].value == 3


def test_large_arguments_and_values(pool):
    text = "x" * 3_000_000
    assert (
        pool.map("tests.rewards.misbehaving:double", [(text,)] * 3)[2].value == 2 * text
    )


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        (("leave", 3), Status.KILLED, "exited with code 3"),
        (("leave", 0), Status.KILLED, "exited with code 0"),
        (("segfault",), Status.KILLED, "SIGSEGV"),
        (("fail", "why"), Status.ERROR, "LookupError: why"),
        (("recurse",), Status.ERROR, "RecursionError"),
        (("unpicklable",), Status.ERROR, "local object"),
        (("missing",), Status.ERROR, "KeyError"),
    ],
)
def test_a_failure_costs_its_own_check_only(pool, call, status, message):
    good = ("double", 4)
    outcomes = act(pool, good, call, good, call, *[good] * 6)
    assert [outcomes[i].status for i in (1, 3)] == [status] * 2
    assert message in outcomes[1].message and outcomes[1].value is None
    assert [each.value for i, each in enumerate(outcomes) if i not in (1, 3)] == [8] * 8
    assert pool.take_counts()[status] == 2
    assert act(pool, good)[0].value == 8


def test_a_hang_is_killed_and_the_rest_is_scored():
    with VerifierPool(2, check_seconds=3.0, batch_seconds=GENEROUS) as pool:
        good = ("double", 4)
        outcomes = act(pool, good, ("hang",), *[good] * 5, ("sleep", 600), good)
        statuses = [outcome.status for outcome in outcomes]
        assert [statuses[i] for i in (1, 7)] == [Status.TIMEOUT] * 2
        assert statuses.count(Status.OK) == 7
        assert "longer than 3 s" in outcomes[1].message
        assert act(pool, good)[0].value == 8


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_memory_blow_up_costs_one_check():
    with VerifierPool(1, check_seconds=GENEROUS, check_memory_mb=256) as pool:
        calls = [("allocate", n) for n in (100, 4096, 100)]
        fits, blows_up, after = act(pool, *calls)
        assert (fits.value, after.value) == (100 * 2**20,) * 2
        assert blows_up.status is Status.ERROR and "MemoryError" in blows_up.message


def test_checks_not_done_at_the_batch_deadline_are_timeouts():
    with VerifierPool(2, check_seconds=GENEROUS, batch_seconds=5.0) as pool:
        outcomes = act(pool, *[("double", 1)] * 4, *[("sleep", 600)] * 6)
        assert [each.value for each in outcomes[:4]] == [2] * 4
        assert [each.status for each in outcomes[4:]] == [Status.TIMEOUT] * 6
        assert "batch took longer than 5 s" in outcomes[-1].message
        assert pool.take_counts()["timeout"] == 6
        assert act(pool, ("double", 2))[0].value == 4


def test_what_a_check_prints_cannot_corrupt_the_protocol(pool, capfd):
    outcomes = pool.map("tests.rewards.misbehaving:noisy", [(i,) for i in range(10)])
    assert [outcome.value for outcome in outcomes] == list(range(10))
    assert "noise" not in "".join(capfd.readouterr())


def test_workers_see_no_accelerator(pool):
    assert pool.map("tests.rewards.misbehaving:heavy_modules", [()])[0].value == (
        [],
        "cpu",
    )
    assert "JAX_PLATFORMS" not in os.environ or os.environ["JAX_PLATFORMS"]


def test_workers_stay_warm_and_are_recycled():
    with VerifierPool(1, check_seconds=GENEROUS, recycle_checks=4) as pool:
        first = process_ids(pool, 2)
        assert process_ids(pool, 2) == first and len(first) == 1
        second = process_ids(pool, 1)
        assert second.isdisjoint(first) and gone_within(first, 10)
        assert len(process_ids(pool, 8)) == 3  # 3 of the old one, then 4, then 1


def test_nothing_starts_before_the_first_batch_and_nothing_is_left(monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda *a, **k: started.append(popen(*a, **k)) or started[-1],
    )
    pool = VerifierPool(3, check_seconds=GENEROUS)
    assert not started
    child = pool.map("tests.rewards.misbehaving:start_child", [()])[0].value
    process_ids(pool)
    assert alive(child) and 1 <= len(started) <= 3
    pool.close()
    assert all(process.returncode == -signal.SIGKILL for process in started)
    assert gone_within([child], 10)
    pool.close()
    with pytest.raises(ValueError, match="closed"):
        process_ids(pool)


def test_a_forgotten_pool_leaves_nothing():
    pool = VerifierPool(1, check_seconds=GENEROUS)
    pids = process_ids(pool)
    del pool
    gc.collect()
    assert gone_within(pids, 10)


def test_an_idle_worker_may_be_killed_from_outside(pool):
    pids = process_ids(pool, 50)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert gone_within(pids, 10)
    outcomes = pool.map("tests.rewards.misbehaving:double", [(i,) for i in range(20)])
    assert [outcome.value for outcome in outcomes] == [2 * i for i in range(20)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module:f", "ModuleNotFoundError"),
        ("tests.rewards.misbehaving:absent", "no attribute 'absent'"),
        ("tests.rewards.misbehaving", "not of the form"),
        (lambda: None, "top level of a module"),
    ],
)
def test_a_function_that_cannot_be_imported(pool, function, message):
    with pytest.raises(ValueError, match=message):
        pool.map(function, [(1,)])
    assert pool.map("tests.rewards.misbehaving:double", [(1,)])[0].value == 2


def test_workers_that_die_at_import_are_an_error_not_a_verdict(pool):
    with pytest.raises(RuntimeError, match="code 7"):
        pool.map("tests.rewards.dies_at_import:f", [(1,)])


def test_an_unpicklable_argument_raises_and_leaves_the_pool_usable(pool):
    with pytest.raises(Exception, match="local object"):
        pool.map("tests.rewards.misbehaving:double", [(1,), (lambda: None,)])
    assert pool.map("tests.rewards.misbehaving:double", [(1,)])[0].value == 2


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("workers", int),
        ("check_seconds", float),
        ("batch_seconds", float),
        ("check_memory_mb", int),
        ("recycle_checks", int),
    ],
)
def test_limits_must_be_positive(name, kind):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        VerifierPool(**{name: kind(0)})


# A script without a guard, as typed into a file or a notebook. It leaves a pool open.
# A shell that starts a job in the background has it ignore SIGINT.
SCRIPT = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {here!r})
from grpo_jax.rewards.pool import VerifierPool
pool = VerifierPool(1, check_seconds={seconds}, batch_seconds=600)
print(pool.map("tests.rewards.misbehaving:process_id", [()])[0].value, flush=True)
{then}
"""


def start_script(then, seconds):
    script = SCRIPT.format(here=str(ROOT), then=then, seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    process.stdin.write(script)
    process.stdin.close()
    return process, int(process.stdout.readline())


def end_script(process, sent=None):
    if sent:
        process.send_signal(sent)
    code = process.wait(60)
    errors = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    return code, errors


def test_the_end_of_an_unguarded_script_ends_its_workers():
    process, pid = start_script("pass", 60)
    assert end_script(process) == (0, "")
    assert gone_within([pid], 10)


def test_ctrl_c_during_a_check_ends_its_worker():
    process, pid = start_script('pool.map("tests.rewards.misbehaving:hang", [()])', 600)
    time.sleep(1)
    code, errors = end_script(process, signal.SIGINT)
    assert code and "KeyboardInterrupt" in errors
    assert gone_within([pid], 10)


def test_a_hung_check_ends_by_itself_when_its_parent_was_killed():
    signals = [signal.SIGTERM, signal.SIGKILL]
    scripts = [
        start_script('pool.map("tests.rewards.misbehaving:hang", [()])', 2)
        for _ in signals
    ]
    time.sleep(0.3)  # less than the check's deadline
    for sent, (process, _) in zip(signals, scripts, strict=True):
        assert end_script(process, sent)[0] == -sent
    assert gone_within([pid for _, pid in scripts], 30)


def test_status_values_are_plain_words():
    assert [str(each) for each in worker_module.Status] == [
        "ok",
        "timeout",
        "error",
        "killed",
    ]
