r"""BM25 over a corpus: how long, how much memory, how fast, and what it finds.

    python -m benchmarks.retrieval --corpus=wiki.jsonl \
        --questions=hotpotqa.jsonl --questions=musique.jsonl

A file of questions has one JSON object a line: `question`, `supporting_titles` (of the
documents that are needed) and, if the corpus lacks them, `paragraphs` with `title` and
`text`, which are added to it. recall@k is the part of these titles among the first k
hits, with the question as it is as the query; its mean over questions. Each choice of
words is an index of its own; stemming is left out where PyStemmer is not installed.
With --fill, made-up documents are added and recall is not measured: their words are
those of documents drawn at random.

Seconds are of one core, so that other work on the machine counts little. Linux only.
"""

import importlib.util
import itertools
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks import common
from grpo_jax.retrieval.base import Failure
from grpo_jax.retrieval.bm25 import Bm25, open_bm25
from grpo_jax.retrieval.corpus import Columns
from grpo_jax.retrieval_config import Bm25Config

DEPTHS = (3, 10)
BATCHES = (1, 32, 256)
# Runs alone, so that nothing but the index is in its memory; prints seconds and MB.
PROGRAM = """
import pathlib, sys, time
from grpo_jax.retrieval.bm25 import open_bm25
from grpo_jax.retrieval.corpus import Columns
from grpo_jax.retrieval_config import Bm25Config
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
before, start = peak(), time.process_time()
open_bm25(sys.argv[1], sys.argv[2], Columns(), Bm25Config()).search(["mosque"], 3)
print(time.process_time() - start, before, peak())
"""


def main() -> None:
    """Measures, compares the choices of words, and writes the numbers."""
    flags = common.parser(__doc__)
    flags.add_argument("--corpus", type=pathlib.Path, required=True)
    flags.add_argument("--questions", type=pathlib.Path, action="append", default=[])
    flags.add_argument("--fill", type=int, default=0, help="made-up documents")
    args = flags.parse_args()
    questions = {path.stem: read(path) for path in args.questions}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        corpus = folder / "corpus.jsonl"
        rows = [*read(args.corpus), *paragraphs(questions)]
        write_corpus(corpus, [*rows, *made_up(rows, args.fill)])
        index = folder / "index"
        build = [alone(corpus, folder / f"again{i}") for i in range(args.repeats)]
        alone(corpus, index)
        load = [alone(corpus, index) for _ in range(args.repeats)]
        files = [path.stat().st_size for path in index.iterdir()]
        retriever = open_bm25(str(corpus), str(index), Columns(), Bm25Config())
        queries = [row["question"] for rows in questions.values() for row in rows]
        result = {
            "index": retriever.describe(),
            "corpus_bytes": corpus.stat().st_size,
            "index_bytes": sum(files),
            "build": build,
            "load": load,
            "queries_per_second": {
                batch: speed(retriever, queries, batch, args.repeats)
                for batch in BATCHES
            },
        }
        if not args.fill:
            result["recall"] = recalls(corpus, folder, questions)
        name = f"retrieval_{args.fill}" if args.fill else "retrieval"
        common.write(args.results, name, result)


def recalls(
    corpus: pathlib.Path, folder: pathlib.Path, questions: dict[str, list[dict]]
) -> list[dict]:
    """Returns the recall on each file of questions, for each choice of words."""
    stemmer = importlib.util.find_spec("Stemmer") is not None
    found = []
    for stop_words, stemming in itertools.product((False, True), (False, True)):
        if stemming and not stemmer:
            print("stemming is left out: pip install PyStemmer", file=sys.stderr)
            continue
        path = str(folder / f"{stop_words}_{stemming}")
        config = Bm25Config(stop_words=stop_words, stemming=stemming)
        retriever = open_bm25(str(corpus), path, Columns(), config)
        row = {"stop_words": stop_words, "stemming": stemming}
        for name, rows in questions.items():
            row[name] = recall(retriever, rows)
        found.append(row)
    return found


def recall(retriever: Bm25, rows: list[dict]) -> dict[str, float]:
    """Returns the mean part of the needed titles among the first hits."""
    hits = retriever.search([row["question"] for row in rows], max(DEPTHS))
    parts = {depth: [] for depth in DEPTHS}
    for row, found in zip(rows, hits, strict=True):
        assert not isinstance(found, Failure)
        wanted = set(row["supporting_titles"])
        for depth in DEPTHS:
            titles = {hit.document.title for hit in found[:depth]}
            parts[depth].append(len(wanted & titles) / len(wanted))
    return {f"@{depth}": statistics.mean(parts[depth]) for depth in DEPTHS}


def read(path: pathlib.Path) -> list[dict]:
    """Returns the rows of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def paragraphs(questions: dict[str, list[dict]]) -> list[dict]:
    """Returns the paragraphs that come with questions."""
    rows = itertools.chain.from_iterable(questions.values())
    return [each for row in rows for each in row.get("paragraphs") or []]


def made_up(rows: list[dict], count: int) -> Iterator[dict]:
    """Yields documents as long as others are, of their words."""
    draw = random.Random(0)
    words = [row["text"].split() for row in rows]
    for number in range(count):
        mixed = [*draw.choice(words), *draw.choice(words)]
        text = draw.sample(mixed, len(mixed) // 2)
        yield {"title": f"Made up {number}", "text": " ".join(text)}


def write_corpus(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes titles and texts; the reader leaves out those that are there already."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"title": row["title"], "text": row["text"]}) + "\n")


def alone(corpus: pathlib.Path, index: pathlib.Path) -> dict[str, float]:
    """Opens the index in a process of its own, which builds it if it is not there."""
    command = [sys.executable, "-c", PROGRAM, str(corpus), str(index)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, before, peak = map(float, done.stdout.split())
    return {"seconds": seconds, "imports_mb": before, "peak_mb": peak}


def speed(retriever: Bm25, queries: list[str], batch: int, repeats: int) -> list[float]:
    """Returns queries a second of each repetition, in batches of that size, k = 3."""
    rates = []
    for _ in range(repeats):
        start = time.process_time()
        for first in range(0, len(queries), batch):
            retriever.search(queries[first : first + batch], 3)
        rates.append(len(queries) / (time.process_time() - start))
    return rates


if __name__ == "__main__":
    main()
