"""Documents from files: rows of JSONL or Parquet, or passages of text files."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Iterator

import pyarrow
from etils import epath

from grpo_jax.data import sources
from grpo_jax.retrieval import text_files
from grpo_jax.retrieval.base import Document

# Names that are tried, in this order, where none is given.
_USUAL = {
    "id": ("id", "_id", "doc_id", "docid"),
    "title": ("title",),
    "text": ("text", "contents", "content", "passage", "paragraph"),
}
_SCHEMA = pyarrow.schema([(name, pyarrow.large_string()) for name in _USUAL])


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns; "" tries the usual ones. Only a text must be there."""

    id: str = ""
    title: str = ""
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Counts:
    """What was read.

    Attributes:
      documents: that are kept.
      repeated: rows left out because an earlier one has their id, title and text.
      empty: rows left out because there is no text in them.
      untitled: documents whose title is empty.
    """

    documents: int
    repeated: int
    empty: int
    untitled: int


class Corpus:
    """Documents in order; those of a saved corpus stay in its file until asked for."""

    def __init__(self, table: pyarrow.Table):
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Document:
        return Document(*(column[index].as_py() for column in self._table.columns))

    def __iter__(self) -> Iterator[Document]:
        for batch in self._table.to_batches(max_chunksize=1024):
            columns = [column.to_pylist() for column in batch.columns]
            for fields in zip(*columns, strict=True):
                yield Document(*fields)

    def fingerprint(self) -> str:
        """Returns what changes with any document, or with their order."""
        digest = hashlib.sha256()
        for document in self:
            for field in (document.id, document.title, document.text):
                data = field.encode()
                digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()[:16]

    def save(self, path: pathlib.Path) -> None:
        """Writes a file that `load` maps into memory."""
        with pyarrow.ipc.new_file(str(path), self._table.schema) as writer:
            writer.write_table(self._table, max_chunksize=65536)

    @staticmethod
    def load(path: pathlib.Path) -> "Corpus":
        """Maps a saved corpus into memory."""
        with pyarrow.memory_map(str(path)) as file:
            return Corpus(pyarrow.ipc.open_file(file).read_all())


def corpus_of(documents: Iterable[Document]) -> Corpus:
    """Returns a corpus of documents in memory."""
    rows = [dataclasses.astuple(document) for document in documents]
    columns = zip(*rows, strict=True) if rows else ([],) * len(_SCHEMA)
    return Corpus(pyarrow.table(list(map(list, columns)), schema=_SCHEMA))


def find_files(location: str) -> list[epath.Path]:
    """Returns the files of a corpus in reading order.

    Args:
      location: what `sources.read_rows` reads, a .txt or .md file, or a directory that
        has such files in it or below and neither JSONL nor Parquet in it.

    Raises:
      FileNotFoundError: nothing is at `location`, or no document in it.
    """
    path = epath.Path(location)
    if path.is_file() and path.suffix in text_files.SUFFIXES:
        return [path]
    if not path.is_dir():
        return sources.find_files(location)
    if any(file.suffix in (".jsonl", ".parquet") for file in path.iterdir()):
        return sources.find_files(location)
    files = list(text_files.find(path))
    if not files:
        raise FileNotFoundError(
            f"{location} holds no document: put .jsonl or .parquet files in it, or "
            ".txt and .md files in it or in folders below"
        )
    return files


def digest(location: str) -> str:
    """Returns the SHA-256 of the files of a corpus; of text files with their names."""
    total = hashlib.sha256()
    for file in find_files(location):
        if file.suffix in text_files.SUFFIXES:
            total.update(_name_of(file, location).encode() + b"\0")
        each = hashlib.sha256()
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                each.update(piece)
        total.update(each.digest())
    return total.hexdigest()[:16]


def read(location: str, columns: Columns) -> tuple[Corpus, Counts]:
    """Returns every document of a corpus, once, in reading order.

    A row without an id column has a hash of its title and text as its id. Where there
    is no title column, a first line in double quotes is the title, as in corpora whose
    column is "contents". Text files are cut into passages, see `text_files.read`.

    Args:
      location: as `find_files` takes it.
      columns: where ids, titles and texts are; not for text files.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row that cannot be read or has no text column, two documents with
        one id, or no document at all.
    """
    kept: dict[str, Document] = {}
    repeated = empty = 0
    for where, document in _scan(location, columns):
        if not document.text:
            empty += 1
        elif document.id not in kept:
            kept[document.id] = document
        elif kept[document.id] == document:
            repeated += 1
        else:
            raise ValueError(
                f"{where}: id {document.id!r} is that of an earlier document, "
                f"{kept[document.id].title!r}, with another title or text: give each "
                "document an id of its own, or name another id column"
            )
    if not kept:
        raise ValueError(
            f"{location} holds no document with a text ({empty} rows or files are "
            "empty): point it to JSONL, Parquet or text files"
        )
    untitled = sum(not document.title for document in kept.values())
    counts = Counts(len(kept), repeated, empty, untitled)
    return corpus_of(kept.values()), counts


def split_title(contents: str) -> tuple[str, str]:
    r"""Returns the title and the text of `"Title"\ntext`; "" and all where it is not.

    A title may have double quotes of its own.
    """
    first, newline, rest = contents.strip().partition("\n")
    first = first.strip()
    if newline and len(first) > 2 and first[0] == first[-1] == '"':
        return first[1:-1].strip(), rest.strip()
    return "", contents.strip()


def of_row(where: str, row: sources.Row, columns: Columns) -> Document:
    """Returns the document of a row; its text may be empty.

    Raises:
      ValueError: names `where`, and the column that is missing or not text.
    """
    fields = {}
    for kind, named in vars(columns).items():
        name = named or next((name for name in _USUAL[kind] if name in row), "")
        if name not in row and (named or kind == "text"):
            wanted = repr(named) if named else " or ".join(map(repr, _USUAL[kind]))
            raise ValueError(
                f"{where} has no column {wanted}: its columns are {sorted(row)}; name "
                f"the one with the {kind} (--{kind}_column, "
                f"config.retrieval.{kind}_column)"
            )
        fields[kind] = _text(where, name, row[name]) if name else None
    if fields["title"] is None:
        fields["title"], fields["text"] = split_title(fields["text"] or "")
    title, text = fields["title"], fields["text"] or ""
    return Document(fields["id"] or _hash(title, text), title, text)


def _scan(location: str, columns: Columns) -> Iterator[tuple[str, Document]]:
    for file in find_files(location):
        if file.suffix in text_files.SUFFIXES:
            for document in text_files.read(file, _name_of(file, location)):
                yield str(file), document
            continue
        for where, row in sources.scan_rows(file):
            if isinstance(row, ValueError):
                raise row
            yield where, of_row(where, row, columns)


def _text(where: str, name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            f"{where}: column {name!r} is {value!r:.200}, a {type(value).__name__}: it "
            "must be text"
        )
    # Half of a surrogate pair can be written in JSON, but not in UTF-8.
    return str(value).encode(errors="replace").decode().strip()


def _hash(title: str, text: str) -> str:
    return hashlib.sha256(f"{title}\0{text}".encode()).hexdigest()[:16]


def _name_of(file: epath.Path, location: str) -> str:
    """Returns the path of a text file within its corpus."""
    folder = epath.Path(location)
    return file.name if file == folder else file.relative_to(folder).as_posix()
