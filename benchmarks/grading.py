"""Whether the accuracy reward agrees with recorded verdicts, how fast, and unstalled.

    python -m benchmarks.grading --samples=gsm8k_samples.jsonl --samples=math.jsonl

A file has a problem a line: an `answer` and `samples`, each with a `text` and whether
it `is_correct`. Every disagreement is printed. Then the same pool is given completions
that are made to keep a verifier busy; a check may take a second here.
"""

import json
import pathlib
import statistics
import time
from typing import Any

from benchmarks import common
from grpo_jax.rewards.accuracy import accuracy
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.pool import VerifierPool

CHECK_SECONDS = 1.0
# What they are, the completion's answer, and the reference.
PATHOLOGICAL = (
    ("powers of powers", "9^{9^{9^{9^{9}}}}", "9^{9^{9^{9}}}"),
    ("a huge factorial", "(10^9)!", "10^9"),
    ("a huge binomial", r"\binom{10^9}{5 \cdot 10^8}", "3"),
    ("100 kB of digits", "7" * 100_000, "7" * 99_999 + "8"),
    ("unbalanced braces", r"\frac{" * 5_000, "5"),
    ("nested fractions", r"\frac{1}{" * 400 + "2" + "}" * 400, "5"),
    ("nested roots", r"\sqrt{" * 300 + "2" + "}" * 300, "5"),
    ("a long sum", "+".join(f"x^{{{i}}}" for i in range(3_000)), "x"),
    ("a huge interval set", r"\cup".join(f"({i},{i + 1})" for i in range(2_000)), "5"),
    ("backslashes", "\\" * 50_000, "5"),
)


def completion(text: str, reference: str) -> Completion:
    """Returns what the reward sees."""
    return Completion("", text, reference, 1, True, 0, {})


def grade(pool: VerifierPool, path: pathlib.Path, repeats: int) -> dict[str, Any]:
    """Checks every sample of a file, several times; prints where verdicts differ."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    samples = [(row, sample) for row in rows for sample in row["samples"]]
    seconds = []
    for _ in range(1 + repeats):  # the first is not counted
        batch = [completion(each["text"], row["answer"]) for row, each in samples]
        start = time.perf_counter()
        values = accuracy(pool)(batch)  # a new reward, which remembers no batch
        seconds.append(time.perf_counter() - start)
    agreed = 0
    for (row, sample), value in zip(samples, values, strict=True):
        if value == float(sample["is_correct"]):
            agreed += 1
            continue
        print(f"differs: {row['id']}, recorded {sample['is_correct']}, ours {value}")
        print(f"    reference {row['answer']!r}, ends {sample['text'][-120:]!r}")
    rates = [len(samples) / each for each in seconds[1:]]
    return {
        "file": path.name,
        "samples": len(samples),
        "agreed": agreed,
        "agreement": agreed / len(samples),
        "checks_per_second": statistics.median(rates),
        "checks_per_second_range": [min(rates), max(rates)],
    }


def torture(pool: VerifierPool) -> list[dict[str, Any]]:
    """Times each pathological completion, and what is checked right after it."""
    found = []
    for name, answer, reference in PATHOLOGICAL:
        batch = [
            completion(rf"\boxed{{{answer}}}", reference),
            completion(r"\boxed{5}", "5"),
        ]
        start = time.perf_counter()
        values = accuracy(pool)(batch)
        found.append(
            {
                "what": name,
                "value": values[0],
                "beside_it": values[1],
                "seconds": round(time.perf_counter() - start, 2),
            }
        )
        print(found[-1])
    return found


def main() -> None:
    """Grades, measures and writes."""
    parser = common.parser(__doc__)
    parser.add_argument("--samples", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with VerifierPool(
        args.workers, check_seconds=CHECK_SECONDS, batch_seconds=600.0
    ) as pool:
        agreement = [grade(pool, path, args.repeats) for path in args.samples]
        for each in agreement:
            print(each)
        pathological = torture(pool)
    result = {"workers": args.workers, "agreement": agreement}
    common.write(args.results, "grading", result | {"pathological": pathological})


if __name__ == "__main__":
    main()
