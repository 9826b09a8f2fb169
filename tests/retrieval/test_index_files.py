"""An index is there whole or not at all, and two that make it do not disturb it."""

import pytest

from grpo_jax.retrieval import index_files
from grpo_jax.retrieval.corpus import Columns
from tests.retrieval.helpers import DOCUMENTS, write_corpus


@pytest.fixture
def spec(tmp_path):
    corpus = write_corpus(tmp_path / "c.jsonl")
    return index_files.Spec("mine", {"size": 1}, corpus, Columns())


def builder(text, before=lambda: None):
    def build(directory, corpus, counts):
        before()
        assert (len(corpus), counts.documents) == (4, 4)
        (directory / "own").write_text(text)

    return build


def test_what_is_made_is_opened(tmp_path, spec):
    made = index_files.open_index(tmp_path / "deep" / "i", spec, builder("x"))
    found = index_files.open_index(tmp_path / "deep" / "i", spec, builder("y"))
    assert (made.built, found.built) == (True, False)
    assert (found.path / "own").read_text() == "x"
    assert list(found.corpus) == DOCUMENTS
    assert made.describe() == found.describe()
    assert found.describe(more=1)["fingerprint"] != found.describe()["fingerprint"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["i"]


def test_an_empty_directory_can_be_named(tmp_path, spec):
    (tmp_path / "i").mkdir()
    assert index_files.open_index(tmp_path / "i", spec, builder("x")).built


def test_the_first_of_two_that_make_it_at_once_is_kept(tmp_path, spec):
    def other():
        index_files.open_index(tmp_path / "i", spec, builder("first"))

    index = index_files.open_index(tmp_path / "i", spec, builder("second", other))
    assert (index.path / "own").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "i"]


def test_a_failure_leaves_nothing(tmp_path, spec):
    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        index_files.open_index(tmp_path / "i", spec, builder("x", fail))
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


def test_an_index_of_another_kind_or_version_is_refused(tmp_path, spec, monkeypatch):
    index_files.open_index(tmp_path / "i", spec, builder("x"))
    other = index_files.Spec("other", {"length": 1}, spec.location, Columns())
    with pytest.raises(ValueError, match="made with kind = 'mine' and now it is 'oth"):
        index_files.open_index(tmp_path / "i", other, builder("x"))
    monkeypatch.setattr(index_files, "_VERSION", 99)
    with pytest.raises(ValueError, match="version = 2 and now it is 99"):
        index_files.open_index(tmp_path / "i", spec, builder("x"))


@pytest.mark.parametrize("location", ["hub:a/b:train", "data/*.jsonl"])
def test_only_one_file_or_directory_has_a_place_beside_it(location):
    assert index_files.default_path("notes/", "bm25") == "notes.bm25"
    with pytest.raises(ValueError, match="say where its index is to be kept"):
        index_files.default_path(location, "bm25")
