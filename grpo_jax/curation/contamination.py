"""Problems that an evaluation set holds, too."""

from collections import Counter
from collections.abc import Sequence

from grpo_jax.curation import text
from grpo_jax.curation.problems import Drop, Problem, Verdict


def contamination(
    problems: Sequence[Problem], benchmarks: Sequence[Problem], ngram: int
) -> list[Verdict]:
    """Drops what shares an n-gram of words with a problem of a benchmark.

    Words are compared in lower case and without punctuation. A problem of fewer than n
    words has no n-gram: it collides with one of the same words, and with no other.

    Args:
      problems: to be judged.
      benchmarks: of the evaluation sets.
      ngram: n, in words.

    Source: decontamination of open-r1, which keeps punctuation and lets short problems
    pass.
    """
    sizes, owners = [], {}
    for index, benchmark in enumerate(benchmarks):
        grams = set(_grams(benchmark, ngram))
        sizes.append(len(grams))
        for gram in grams:
            owners.setdefault(gram, []).append(index)
    verdicts: list[Verdict] = []
    for problem in problems:
        # In the order of the text, each gram once.
        shared = [g for g in dict.fromkeys(_grams(problem, ngram)) if g in owners]
        if not shared:
            verdicts.append(None)
            continue
        hits = Counter(index for gram in shared for index in owners[gram])
        closest = min(hits, key=lambda index: (-hits[index], index))
        first = next(gram for gram in shared if closest in owners[gram])
        evidence = f"{hits[closest]} of {sizes[closest]} n-grams, such as '{first}'"
        other = benchmarks[closest]
        verdicts.append(Drop(f"in_{other.source}", evidence, other.where))
    return verdicts


def _grams(problem: Problem, n: int) -> list[str]:
    return text.ngrams(text.words(problem.question), n)
