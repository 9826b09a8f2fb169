"""Scores are those of the formula, and the index is made once."""

import json
import math
import pathlib
import subprocess
import sys

import pytest

from grpo_jax.retrieval import words
from grpo_jax.retrieval.bm25 import open_bm25
from grpo_jax.retrieval.corpus import Columns
from grpo_jax.retrieval_config import Bm25Config
from tests.retrieval.helpers import DOCUMENTS, titles, write_corpus, write_rows


def opened(corpus, index="", *, rebuild=False, columns=Columns(), **config):  # noqa: B008
    config = Bm25Config(**config)
    return open_bm25(str(corpus), str(index), columns, config, rebuild=rebuild)


@pytest.fixture
def path(tmp_path):
    return write_corpus(tmp_path / "c.jsonl")


def reference_scores(query, documents, k1=1.5, b=0.75):
    """The formula, one word and one document at a time."""
    split = words.splitter(stop_words=True, stemming=False)
    texts = [split(f"{each.title} {each.text}") for each in documents]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        total = 0.0
        for word in split(query):
            having = sum(word in other for other in texts)
            times = text.count(word)
            rarity = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            total += rarity * times / (times + k1 * (1 - b + b * len(text) / mean))
        scores.append(total)
    return scores


@pytest.mark.parametrize("query", ["mosque Istanbul", "the SULTAN Mustafa mustafa"])
@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4)])
def test_scores_are_those_of_the_formula(path, query, k1, b):
    found = opened(path, k1=k1, b=b).search([query], 4)[0]
    scores = reference_scores(query, DOCUMENTS, k1, b)
    expected = {d.id: s for d, s in zip(DOCUMENTS, scores, strict=True) if s > 0}
    assert {hit.document.id: hit.score for hit in found} == pytest.approx(expected)
    assert [hit.score for hit in found] == sorted(expected.values(), reverse=True) or (
        [hit.score for hit in found]
        == pytest.approx(sorted(expected.values(), reverse=True))
    )


def test_hits_of_a_batch_are_those_of_each_query_alone(path):
    retriever = opened(path)
    queries = ["mosque", "sultan of Istanbul", "", "zeppelin", "the", "MOSQUE"]
    together = retriever.search(queries, 2)
    assert together == [retriever.search([query], 2)[0] for query in queries]
    assert titles(together[0]) == ["Laleli Mosque"]
    assert together[2:5] == [[], [], []]
    assert together[5] == together[0]


def test_words_of_other_scripts_are_found(tmp_path):
    texts = ["Küçük Hüseyin", "Москва река", "清真寺"]
    path = write_rows(tmp_path / "c.jsonl", [{"text": text} for text in texts])
    found = opened(path).search(["KÜÇÜK", "москва", "清真寺"], 1)
    assert [each[0].document.text for each in found] == texts


def test_equal_documents_come_in_the_order_of_the_corpus(tmp_path):
    rows = [{"id": i, "text": "same words"} for i in (5, 3, 9, 1)]
    path = write_rows(tmp_path / "c.jsonl", rows)
    hits = opened(path).search(["words"], 3)[0]
    assert [hit.document.id for hit in hits] == ["5", "3", "9"]


def test_documents_without_words_are_kept_and_never_found(tmp_path):
    rows = [{"text": "..."}, {"text": "the"}, {"text": "mosque"}]
    path = write_rows(tmp_path / "c.jsonl", rows)
    retriever = opened(path)
    assert retriever.describe()["documents"] == 3
    assert [hit.document.text for hit in retriever.search(["mosque the"], 3)[0]] == [
        "mosque"
    ]
    path = write_rows(tmp_path / "d.jsonl", rows[:2])
    with pytest.raises(ValueError, match="d.jsonl: no document has a word"):
        opened(path)
    assert list(tmp_path.glob("d.jsonl*")) == [pathlib.Path(path)]


def test_an_index_is_made_once_and_is_the_same_afterwards(path):
    first, second = opened(path), opened(path)
    assert first.index.built
    assert not second.index.built
    assert first.describe() == second.describe()
    assert second.search(["mosque sultan"], 3) == first.search(["mosque sultan"], 3)
    assert str(second.index.path) == f"{path}.bm25"


def test_an_index_serves_without_its_corpus(path, tmp_path):
    made = opened(path, tmp_path / "index")
    pathlib.Path(path).unlink()
    assert opened("", tmp_path / "index").describe() == made.describe()
    with pytest.raises(FileNotFoundError, match="absent holds no index, and no corpus"):
        opened("", tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k1": 1.2}, "k1 = 1.5 and now it is 1.2"),
        ({"b": 0.5}, "b = 0.75 and now it is 0.5"),
        ({"stop_words": False}, "stop_words = True and now it is False"),
        ({"columns": Columns(text="title")}, "columns = .* now it is .*'title'"),
    ],
)
def test_an_index_of_other_settings_is_refused(path, change, message):
    opened(path)
    with pytest.raises(
        ValueError, match=f"bm25 was made with {message}.*: delete .*bm25 to"
    ):
        opened(path, **change)
    assert opened(path, rebuild=True, **change).index.built
    assert not opened(path, **change).index.built


def test_an_index_of_another_corpus_is_refused(path, tmp_path):
    opened(path)
    write_corpus(tmp_path / "c.jsonl", DOCUMENTS[:2])
    with pytest.raises(ValueError, match="now holds something else: delete"):
        opened(path)
    assert opened(path, rebuild=True).describe()["documents"] == 2


def test_an_index_of_another_release_is_refused(path):
    manifest = opened(path).index.path / "manifest.json"
    text = json.loads(manifest.read_text())
    text["settings"]["bm25s"] = "0.1"
    manifest.write_text(json.dumps(text))
    with pytest.raises(ValueError, match="bm25s = '0.1' and now it is"):
        opened(path)
    manifest.write_text('{"kind": ')
    with pytest.raises(ValueError, match="manifest.json is damaged: delete"):
        opened(path)


def test_what_is_no_index_is_left_alone(path, tmp_path):
    for rebuild in (False, True):
        with pytest.raises(ValueError, match="is there and is no index"):
            opened(path, tmp_path, rebuild=rebuild)
    assert pathlib.Path(path).exists()
    with pytest.raises(ValueError, match="not one file or directory: say where"):
        opened(f"{tmp_path}/*.jsonl")


def test_a_build_that_fails_leaves_the_old_index(path, tmp_path):
    opened(path)
    (tmp_path / "c.jsonl").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        opened(path, rebuild=True)
    assert len(list(tmp_path.iterdir())) == 2
    assert opened("", f"{path}.bm25").search(["mosque"], 1)[0]


def test_nothing_is_printed(path, capfd):
    opened(path).search(["mosque"], 1)
    assert capfd.readouterr() == ("", "")


def test_a_search_starts_no_device(path):
    program = (
        "import sys\n"
        "from grpo_jax.retrieval.bm25 import open_bm25\n"
        "from grpo_jax.retrieval import load\n"
        "from grpo_jax.retrieval.corpus import Columns\n"
        "from grpo_jax.retrieval_config import Bm25Config\n"
        f"open_bm25({path!r}, '', Columns(), Bm25Config()).search(['mosque'], 1)\n"
        "print('jax' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    # In this process jax is there, and is again after bm25s was imported without it.
    opened(path)
    assert sys.modules["bm25s"].selection.JAX_IS_AVAILABLE is False
    assert sys.modules["jax"] is not None


def test_stop_words_and_stems():
    text = "The directors directed"
    split = words.splitter(stop_words=True, stemming=False)
    assert split(text) == ["directors", "directed"]
    split = words.splitter(stop_words=False, stemming=False)
    assert split(text) == ["the", "directors", "directed"]


def test_stemming(monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(ValueError, match="pip install 'PyStemmer"):
        words.splitter(stop_words=True, stemming=True)
    monkeypatch.undo()
    pytest.importorskip("Stemmer")
    split = words.splitter(stop_words=True, stemming=True)
    assert split("The directors directed") == ["director", "direct"]
