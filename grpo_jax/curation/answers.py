"""Whether a verifier can work with the reference of a problem."""

import os
from collections.abc import Sequence

from grpo_jax.curation.problems import Drop, Problem, Verdict
from grpo_jax.reporting import terminal
from grpo_jax.rewards import extraction
from grpo_jax.rewards.math import verify_math
from grpo_jax.rewards.pool import VerifierPool
from grpo_jax.rewards.worker import Outcome, Status

_CHUNK = 256  # checks between two reports of progress
_CHECK_SECONDS = 5.0
_ANOTHER = r"\boxed{8191.5}"


def has_box(problems: Sequence[Problem]) -> list[Verdict]:
    """Drops problems whose solution does not state its answer in a box."""
    return [
        None if extraction.last_box(problem.solution) else Drop("no_box")
        for problem in problems
    ]


def gradable(problems: Sequence[Problem]) -> list[Verdict]:
    """Drops answers that no completion could be told to equal.

    The verifier of the rewards, in processes that can be killed, compares each answer
    with itself and with another. One that it cannot read, that does not equal itself,
    or that keeps it busy for too long would never be rewarded. Each answer is checked
    once, however many problems have it.
    """
    answers = list(dict.fromkeys(problem.answer for problem in problems))
    verdicts: dict[str, Verdict] = {}
    with _pool() as pool, terminal.Progress("answers", len(answers)) as progress:
        for start in range(0, len(answers), _CHUNK):
            chunk = answers[start : start + _CHUNK]
            outcomes = pool.map(_equals_itself, [(answer,) for answer in chunk])
            verdicts |= dict(zip(chunk, map(_verdict, chunk, outcomes), strict=True))
            progress.update(len(verdicts), {})
    return [verdicts[problem.answer] for problem in problems]


def _pool() -> VerifierPool:
    return VerifierPool(
        os.cpu_count() or 1,
        check_seconds=_CHECK_SECONDS,
        batch_seconds=_CHUNK * _CHECK_SECONDS,
    )


def _equals_itself(answer: str) -> bool | None:
    """Returns what the verifier says of the answer itself; runs in the pool."""
    stated = extraction.final_answer(answer)
    completion = rf"\boxed{{{answer if stated is None else stated}}}"
    # Equal texts are equal at once: whether comparing ever ends, a wrong answer shows.
    verify_math(_ANOTHER, answer)
    return verify_math(completion, answer)


def _verdict(answer: str, outcome: Outcome) -> Verdict:
    if outcome.status is not Status.OK:
        return Drop("answer_check_failed", f"{answer!r}: {outcome.message}")
    if outcome.value is None:
        return Drop("answer_unreadable", answer)
    return None if outcome.value else Drop("answer_not_itself", answer)
