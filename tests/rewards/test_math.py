import random
import subprocess
import sys
import time

import math_verify
import pytest

from grpo_jax.rewards import math as rewards_math
from grpo_jax.rewards.accuracy import accuracy
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.math import verify_math
from grpo_jax.rewards.pool import VerifierPool


@pytest.mark.parametrize(
    ("completion", "reference", "expected"),
    [
        # Open-RS, acceptance property 8, as today's graders have it.
        (r"\boxed{\frac{63}{400}}", r"\frac{63}{400}", True),
        (r"\boxed{\frac{64}{400}}", r"\frac{63}{400}", False),
        (r"\boxed{3}", "6", False),
        (r"\boxed{3}", "", None),
        (r"\boxed{3}", "garbage", None),
        ("", "6", False),
        ("There are 6 of them", "6", False),
        (r"\boxed{5} and then \boxed{6}", "6", True),
        (r"\boxed{6} and then \boxed{5}", "6", False),
        # References of every form.
        (r"\boxed{6}", "6", True),
        (r"\boxed{6}", "6.", True),
        (r"\boxed{6}", "$6$", True),
        (r"\boxed{6}", r"\(6\)", True),
        (r"\boxed{6}", r"\boxed{6}", True),
        (r"\boxed{6}", "3 + 3 = 6\n#### 6", True),
        (r"\boxed{2\sqrt{3}}", r"2\sqrt{3}", True),
        (r"\boxed{2}", r"2\sqrt{3}", False),
        (r"\boxed{\sqrt{12}}", r"Hence it is $2\sqrt{3}$", True),
        (r"\boxed{1234}", "1,234", True),
        (r"\boxed{0.5}", r"\frac12", True),
        (r"\boxed{50\%}", "50", True),
        (r"\boxed{\$18}", "18", True),
        (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", True),
        (r"\boxed{\text{Briana}}", r"\text{Evelyn}", False),
        (r"\boxed{(3, \frac{\pi}{2})}", r"\left(3, \dfrac{\pi}{2}\right)", True),
        (r"\boxed{x = 5}", "5", True),
        (r"\boxed{B}", "B", True),
        (r"\boxed{C}", "B", False),
        (r"\boxed{007}", "7", True),
        # Nothing to grade by.
        (r"\boxed{1}", "   ", None),
        (r"\boxed{1}", "???", None),
        (r"\boxed{1}", r"\frac{", None),
        (r"\boxed{i do not know}", "I do not know.", None),
        # Answers that do not count, or are no answers.
        (r"<think>\boxed{6}</think> I am not sure.", "6", False),
        (r"<think>\boxed{5}</think> \boxed{6}", "6", True),
        (r"<think>So \boxed{6}", "6", False),
        (r"\boxed{}", "6", False),
        (r"\boxed{six}", "6", False),
        (r"\boxed{\frac{}", "6", False),
        ("The answer is 6.", "6", True),
        ("#### 6", "6", True),
        ("<answer>6</answer>", "6", True),
        ("<answer>5</answer>", "6", False),
        (r"\boxed{5} <answer>6</answer>", "6", False),
    ],
)
def test_verify_math(completion, reference, expected):
    assert verify_math(completion, reference) is expected


def test_two_boxes_close_together_are_not_a_set_of_answers():
    assert verify_math(r"\boxed{1} or \boxed{2}", r"\{1, 2\}") is False
    assert verify_math(r"\boxed{1, 2}", r"\{1, 2\}") is True


def test_the_quick_way_agrees_with_math_verify(monkeypatch):
    generator = random.Random(0)
    texts = [
        "0",
        "-0",
        "007",
        "+3",
        "1,234",
        "1234",
        "-1,234,567",
        "999999999999999999",
    ]
    for _ in range(60):
        number = generator.randint(-30, 30) * 10 ** generator.randint(0, 9)
        texts.append(generator.choice(["{}", "{:,}", "0{:d}", "+{:d}"]).format(number))
    texts = [text for text in texts if "+-" not in text and "0-" not in text]
    pairs = [(a, b) for a in texts[:24] for b in texts[:24]] + [(a, a) for a in texts]
    assert sum(rewards_math._is_integer(text) for text in texts) > len(texts) // 2

    def verdicts():
        rewards_math._equal.cache_clear()
        return [verify_math(rf"\boxed{{{a}}}", b) for a, b in pairs]

    quick = verdicts()
    monkeypatch.setattr(rewards_math, "_is_integer", lambda text: False)
    assert verdicts() == quick
    assert {True, False} <= set(quick)


def test_math_verify_gets_the_reference_first_and_no_alarm(monkeypatch):
    calls = []
    monkeypatch.setattr(
        math_verify, "verify", lambda *a, **k: calls.append((a, k)) or False
    )
    assert verify_math(r"\boxed{y - 12345}", "x + 54321") is False
    ((gold, answer), options) = calls[0]
    assert "54321" in str(gold) and "12345" in str(answer)
    assert not options["timeout_seconds"]


def completion(text, reference, prompt="q"):
    return Completion(prompt, text, reference, 1, True, 0, {})


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(2, check_seconds=3.0, batch_seconds=45.0) as made:
        yield made


def test_accuracy(pool):
    batch = [
        completion(r"\boxed{6}", "6"),
        completion(r"\boxed{5}", "6"),
        completion(r"\boxed{5}", ""),
        completion(r"r \boxed{6}", "6", prompt="q <think>\n"),
        completion(r"r</think> \boxed{6}", "6", prompt="q <think>\n"),
    ]
    reward = accuracy(pool)
    for _ in range(2):  # the second time without a check
        assert reward(batch) == [1.0, 0.0, None, 0.0, 1.0]
    assert pool.take_counts() == {"ok": 5, "timeout": 0, "error": 0, "killed": 0}


def test_a_check_that_fails_is_not_a_wrong_answer(pool):
    class Failing(VerifierPool):
        def map(self, function, arguments):
            return pool.map(
                "tests.rewards.misbehaving:act", [("leave", 1), ("fail", "x")]
            )

    assert accuracy(Failing())([completion("", "6")] * 2) == [None, None]
    counts = pool.take_counts()
    assert (counts["killed"], counts["error"]) == (1, 1)


PATHOLOGICAL = [
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{9^{9^{9^{9^9}}} - 9^{9^{9^{9^8}}}}",
    rf"\boxed{{{'7' * 100_000}}}",
    r"\boxed{100000!}",
    r"\boxed{((100!)!)!}",
    r"\boxed{" * 3_000,
    r"\boxed{" + "{" * 50_000 + "}" * 49_999,
    r"\boxed{" + r"\frac{1}{1+" * 300 + "1" + "}" * 300 + "}",
    r"\boxed{" + "(" * 5_000 + ")" * 5_000 + "}",
    r"\boxed{\int_0^{\infty} e^{-x^{x^x}} \sin(x^{100}) dx}",
    r"\boxed{\sum_{n=1}^{10^{100}} \frac{1}{n^n}}",
    r"\boxed{" + r"\(" * 30_000 + "}",
    "The answer is " * 10_000,
    "answer" + " " * 100_000,
    "<answer>" * 20_000,
    "$" * 50_000,
]


@pytest.mark.system
def test_pathological_completions_finish_and_cost_only_themselves(pool):
    generator = random.Random(0)
    noise = [
        r"\boxed{" + "".join(chr(generator.randint(1, 0xD7FF)) for _ in range(60)) + "}"
        for _ in range(20)
    ]
    batch = []
    for text in PATHOLOGICAL + noise:
        batch += [completion(text, r"\frac{1}{3}"), completion(r"\boxed{1/3}", "1/3")]
    start = time.monotonic()
    values = accuracy(pool)(batch)
    assert time.monotonic() - start < 2 * 45.0
    assert values[1::2] == [1.0] * (len(batch) // 2)
    assert set(values[::2]) <= {0.0, None}
    assert values[::2].count(0.0) > len(batch) // 4


def test_the_reward_imports_neither_jax_nor_sympy():
    code = (
        "import sys; from grpo_jax.rewards import accuracy, format, pool, scoring;"
        "print({'jax', 'flax', 'sympy', 'math_verify'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("reference", "said", "right"),
    [
        ("4.5e33", r"4.5 \times 10^{33}", True),
        (r"4.5 \times 10^{33}", "4.5e33", True),
        ("4.5E+33", "4.5e33", True),
        ("1e-8", "10^{-8}", True),
        ("1.5e-3", "0.0015", True),
        ("4.5e33", "4.5e32", False),
        ("4.5e33", "4.5", False),
        # Nothing but a number is read so.
        ("2e", "2e", True),
        ("2e^3", "2e^3", True),
        ("2e^3", "2000", False),
    ],
)
def test_scientific_notation(reference, said, right):
    assert verify_math(f"\\boxed{{{said}}}", reference) is right
