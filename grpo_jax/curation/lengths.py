"""Problems and solutions that are too long for a run."""

from collections.abc import Sequence

from grpo_jax.curation.problems import Drop, Problem, Verdict
from grpo_jax.data.tokenizer import Tokenizer


def lengths(
    problems: Sequence[Problem],
    tokenizer: Tokenizer,
    *,
    max_prompt_tokens: int,
    max_solution_tokens: int,
) -> list[Verdict]:
    """Drops what has more tokens than a limit; a limit of 0 is none.

    The prompt is the question: a template adds its own tokens.
    """

    def judge(problem: Problem) -> Verdict:
        for name, value, limit in (
            ("prompt", problem.question, max_prompt_tokens),
            ("solution", problem.solution, max_solution_tokens),
        ):
            try:
                tokens = len(tokenizer.encode(value)) if limit else 0
            except ValueError as error:
                return Drop("no_token", str(error))
            if tokens > limit:
                return Drop(f"long_{name}", f"{tokens} tokens")
        return None

    return [judge(problem) for problem in problems]
