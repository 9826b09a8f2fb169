"""How many problems of each difficulty a training set has."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from grpo_jax.curation.problems import Drop, Problem, Verdict


def mixture(
    problems: Sequence[Problem], counts: Mapping[str, int], seed: int
) -> list[Verdict]:
    """Keeps exactly `counts[label]` problems of each difficulty, drawn at random.

    The draw of one label depends on the seed and on its own rows only, and a larger
    count keeps what a smaller one kept.

    Raises:
      ValueError: a label does not exist, or has fewer problems than asked for.
    """
    check(problems, counts)
    drawn: set[int] = set()
    for label, count in counts.items():
        rows = [i for i, each in enumerate(problems) if each.difficulty == label]
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        drawn.update(rows[i] for i in rng.permutation(len(rows))[:count])
    return [
        None
        if row in drawn
        else Drop("not_drawn" if problem.difficulty in counts else "other_difficulty")
        for row, problem in enumerate(problems)
    ]


def check(problems: Sequence[Problem], counts: Mapping[str, int]):
    """Raises a ValueError where `counts` asks for what is not there."""
    there = Counter(problem.difficulty for problem in problems)
    for label, count in counts.items():
        if label not in there:
            labels = ", ".join(f"{name!r} ({there[name]})" for name in ranked(there))
            raise ValueError(
                f"--mixture asks for difficulty {label!r}, which no problem has: there "
                f"are {labels}"
            )
        if count > there[label]:
            raise ValueError(
                f"--mixture asks for {count} problems of difficulty {label!r} and "
                f"{there[label]} are left: ask for fewer, or add input"
            )


def ranked(labels: Iterable[str]) -> list[str]:
    """Returns labels from easy to hard: by the numbers in them, then by letters."""
    return sorted(set(labels), key=_parts)


def _parts(label: str) -> list[tuple[bool, float, str]]:
    parts = re.findall(r"[0-9]+(?:\.[0-9]+)?|[^0-9]+", label)
    return [
        (False, float(part), "") if "0" <= part[0] <= "9" else (True, 0.0, part)
        for part in parts
    ]
