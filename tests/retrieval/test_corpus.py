"""Documents from rows and from text files, once each, and every bad one is named."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from grpo_jax.retrieval import corpus
from grpo_jax.retrieval.base import Document
from grpo_jax.retrieval.corpus import Columns, Counts
from tests.retrieval.helpers import DOCUMENTS, write_corpus, write_rows

USUAL = Columns()


def read(path, columns=USUAL):
    found, counts = corpus.read(str(path), columns)
    return list(found), counts


def test_rows_become_documents_in_order(tmp_path):
    documents, counts = read(write_corpus(tmp_path / "c.jsonl"))
    assert documents == DOCUMENTS
    assert counts == Counts(4, 0, 0, 0)


def test_parquet_and_named_columns(tmp_path):
    rows = [{"key": 7, "heading": "T", "body": " x ", "text": "another"}]
    path = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    documents, _ = read(path, Columns("key", "heading", "body"))
    assert documents == [Document("7", "T", "x")]


def test_a_first_line_in_quotes_is_a_title_where_no_column_is(tmp_path):
    rows = [
        {"id": "0", "contents": '"The "Great" Mosque"\nIn Algiers.\nOld.'},
        {"id": "1", "contents": "No title\nhere."},
        {"id": "2", "contents": '"Only a quotation"'},
    ]
    documents, counts = read(write_rows(tmp_path / "c.jsonl", rows))
    assert documents == [
        Document("0", 'The "Great" Mosque', "In Algiers.\nOld."),
        Document("1", "", "No title\nhere."),
        Document("2", "", '"Only a quotation"'),
    ]
    assert counts.untitled == 2
    rows[0]["title"] = "T"
    documents, _ = read(write_rows(tmp_path / "c.jsonl", rows[:1]))
    assert documents[0].text.startswith('"The "Great" Mosque"')


def test_ids_of_rows_without_one_follow_the_content(tmp_path):
    rows = [{"title": "A", "text": "x"}, {"title": "B", "text": "x"}]
    forward, _ = read(write_rows(tmp_path / "c.jsonl", rows))
    backward, _ = read(write_rows(tmp_path / "c.jsonl", rows[::-1]))
    assert forward == backward[::-1]
    assert forward[0].id != forward[1].id


def test_repeated_and_empty_rows_are_left_out_and_counted(tmp_path):
    rows = [
        {"title": "A", "text": "x"},
        {"title": "A", "text": "x"},
        {"title": "B", "text": " "},
        {"title": None, "text": "y"},
        {"title": "C", "text": None},
    ]
    documents, counts = read(write_rows(tmp_path / "c.jsonl", rows))
    assert [document.text for document in documents] == ["x", "y"]
    assert counts == Counts(documents=2, repeated=1, empty=2, untitled=1)


def test_one_id_for_two_documents_is_refused(tmp_path):
    rows = [{"id": 1, "title": "A", "text": "x"}, {"id": 1, "title": "A", "text": "y"}]
    path = write_rows(tmp_path / "c.jsonl", rows)
    with pytest.raises(ValueError, match=r"c.jsonl:2: id '1' .* earlier document, 'A'"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no document with a text"),
        (
            '{"title": "A", "text": ""}',
            r"no document with a text \(1 rows or files are e",
        ),
        ('{"title": "A"}', r":1 has no column 'text' or .* are \['title'\].*--text_co"),
        ('{"text": ["a"]}', r":1: column 'text' is \['a'\], a list: it must be text"),
        ('{"text": "a", "id": true}', "column 'id' is True"),
        ('{"text": "a"}\n{', "c.jsonl:2 is not JSON"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, message):
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_named_column_must_be_there(tmp_path):
    path = write_corpus(tmp_path / "c.jsonl")
    with pytest.raises(
        ValueError, match="no column 'name'.*config.retrieval.title_col"
    ):
        read(path, Columns(title="name"))
    with pytest.raises(FileNotFoundError, match="nearest name there is 'c.jsonl'"):
        read(tmp_path / "d.jsonl")


def test_half_a_surrogate_pair_can_be_saved(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"text": "a\ud800"}))
    found, _ = corpus.read(str(path), USUAL)
    found.save(tmp_path / "c.arrow")
    assert corpus.Corpus.load(tmp_path / "c.arrow")[0].text == "a?"


def test_a_folder_of_text_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "The mosque.md").write_text("\ufeff# Old\n\nIt is old.\n")
    (tmp_path / "b.txt").write_text("# new")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "c.pdf").write_bytes(b"\xff")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "d.txt").write_text("not for you")
    documents, counts = read(tmp_path)
    assert documents == [
        Document("b.txt#1", "b", "# new"),
        Document("deep/The mosque.md#1", "Old", "It is old."),
    ]
    assert counts == Counts(documents=2, repeated=0, empty=1, untitled=0)
    assert read(tmp_path / "b.txt")[0] == [Document("b.txt#1", "b", "# new")]
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"b.txt is not UTF-8.*move it elsewhere"):
        read(tmp_path)


def test_a_folder_without_a_document(tmp_path):
    (tmp_path / "c.pdf").write_bytes(b"\xff")
    with pytest.raises(FileNotFoundError, match=r"holds no document: put \.jsonl or"):
        read(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"\(1 rows or files are empty\)"):
        read(tmp_path)


def test_text_beside_rows_is_not_a_document(tmp_path):
    write_corpus(tmp_path / "c.jsonl")
    (tmp_path / "README.md").write_text("about it")
    assert read(tmp_path)[0] == DOCUMENTS


def test_the_digest_follows_contents_and_names_of_text_files(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    first = corpus.digest(str(tmp_path))
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    second = corpus.digest(str(tmp_path))
    (tmp_path / "b.txt").write_text("y")
    assert len({first, second, corpus.digest(str(tmp_path))}) == 3
    (tmp_path / "b.txt").rename(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("x")
    assert corpus.digest(str(tmp_path)) == first


def test_a_saved_corpus_is_the_same(tmp_path):
    made = corpus.corpus_of(DOCUMENTS)
    made.save(tmp_path / "c.arrow")
    loaded = corpus.Corpus.load(tmp_path / "c.arrow")
    assert list(loaded) == DOCUMENTS
    assert [loaded[i] for i in range(len(loaded))] == DOCUMENTS
    assert loaded.fingerprint() == made.fingerprint()
    assert corpus.corpus_of(DOCUMENTS[::-1]).fingerprint() != made.fingerprint()
