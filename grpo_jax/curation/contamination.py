"""Problems that an evaluation set holds, too."""

from collections import Counter
from collections.abc import Sequence

from grpo_jax.curation import text
from grpo_jax.curation.problems import Drop, Problem, Verdict


def contamination(
    problems: Sequence[Problem],
    benchmarks: Sequence[Problem],
    ngram: int,
    phrase_count: int = 0,
) -> list[Verdict]:
    """Drops what shares an n-gram of words with a problem of a benchmark.

    Words are compared in lower case and without punctuation. A problem of fewer than n
    words has no n-gram: it collides with one of the same words, and with no other.

    An n-gram that many problems hold is a phrase, "where m and n are relatively prime".
    With `phrase_count` a problem passes that shares phrases only, and less than half of
    any benchmark's problem: of one that was copied many times all n-grams are frequent.

    Args:
      problems: to be judged.
      benchmarks: of the evaluation sets.
      ngram: n, in words.
      phrase_count: problems from which on an n-gram is a phrase. 0: none is.

    Source: decontamination of open-r1, which keeps punctuation and lets short problems
    pass.
    """
    sizes, owners = [], {}
    for index, benchmark in enumerate(benchmarks):
        grams = set(_grams(benchmark, ngram))
        sizes.append(len(grams))
        for gram in grams:
            owners.setdefault(gram, []).append(index)
    # In the order of the text, each gram once.
    shared_by = [
        [gram for gram in dict.fromkeys(_grams(problem, ngram)) if gram in owners]
        for problem in problems
    ]
    counts = Counter(gram for shared in shared_by for gram in shared)
    verdicts: list[Verdict] = []
    for shared in shared_by:
        hits = Counter(index for gram in shared for index in owners[gram])
        phrases = phrase_count and all(counts[gram] >= phrase_count for gram in shared)
        few = all(2 * count < sizes[index] for index, count in hits.items())
        if not shared or (phrases and few):
            verdicts.append(None)
            continue
        closest = min(hits, key=lambda index: (-hits[index], index))
        first = next(gram for gram in shared if closest in owners[gram])
        evidence = f"{hits[closest]} of {sizes[closest]} n-grams, such as '{first}'"
        other = benchmarks[closest]
        verdicts.append(Drop(f"in_{other.source}", evidence, other.where))
    return verdicts


def _grams(problem: Problem, n: int) -> list[str]:
    return text.ngrams(text.words(problem.question), n)
