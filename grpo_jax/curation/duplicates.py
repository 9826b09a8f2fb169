"""Problems that are there twice: word for word, or nearly."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from grpo_jax.curation import text
from grpo_jax.curation.problems import Drop, Problem, Verdict

_NGRAM = 3


def exact(problems: Sequence[Problem]) -> list[Verdict]:
    """Drops what asks an earlier row's question in the same words and operators."""
    first: dict[str, Problem] = {}
    verdicts: list[Verdict] = []
    for problem in problems:
        earlier = first.setdefault(_key(problem.question), problem)
        if earlier is problem:
            verdicts.append(None)
        elif _key(earlier.answer) == _key(problem.answer):
            verdicts.append(Drop("duplicate", collides_with=earlier.where))
        else:
            answers = f"answers {earlier.answer!r} and {problem.answer!r}"
            verdicts.append(Drop("duplicate_other_answer", answers, earlier.where))
    return verdicts


def near(problems: Sequence[Problem], threshold: float) -> list[Verdict]:
    """Drops what is nearly an earlier row that is kept, with the same answer.

        shared 3-grams / all 3-grams of both >= threshold

    Two problems that differ in a number share most n-grams; they have different
    answers, and both are kept. Exact, not hashed: a pair that reaches the threshold
    shares one of its rarest n-grams, so only rows that do are compared.

    Source: prefix filtering, Bayardo, Ma and Srikant, "Scaling Up All Pairs Similarity
    Search", 2007.
    """
    grams = [set(text.ngrams(text.symbols(p.question), _NGRAM)) for p in problems]
    frequency = Counter(gram for of_row in grams for gram in of_row)
    rows_of: dict[str, list[int]] = defaultdict(list)
    verdicts: list[Verdict] = []
    for row, problem in enumerate(problems):
        rarest = sorted(grams[row], key=lambda gram: (frequency[gram], gram))
        # The shared ones are at least this many, so one is outside the last of them.
        shared = math.ceil(threshold * len(rarest) - 1e-9)
        prefix = rarest[: len(rarest) - shared + 1]
        candidates = sorted({other for gram in prefix for other in rows_of[gram]})
        similar = (
            (other, similarity)
            for other in candidates
            if _key(problems[other].answer) == _key(problem.answer)
            and (similarity := _jaccard(grams[row], grams[other])) >= threshold
        )
        if found := next(similar, None):
            other, similarity = found
            evidence = f"similarity {similarity:.2f}"
            verdicts.append(Drop("near_duplicate", evidence, problems[other].where))
            continue
        verdicts.append(None)
        for gram in prefix:
            rows_of[gram].append(row)
    return verdicts


def _jaccard(a: set[str], b: set[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def _key(said: str) -> str:
    return " ".join(text.symbols(said))
