"""Rows of a dataset, from files or from the Hugging Face hub."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import huggingface_hub
import pyarrow
import pyarrow.parquet
from etils import epath

Row = dict[str, Any]

_SUFFIXES = (".jsonl", ".parquet")
_HUB = "hub:"


def read_rows(location: str, columns: Sequence[str] = ()) -> list[Row]:
    """Returns every row of a dataset, in file order, with all of its columns.

    Args:
      location: a `.jsonl` or `.parquet` file, a directory or a glob of them (read in
        the order of their names), or `hub:dataset_id[:config]:split`.
      columns: names that every row must have.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a file that cannot be read, a missing column, or no row at all.
    """
    rows = [row for file in find_files(location) for row in _read_file(file, columns)]
    if not rows:
        raise ValueError(f"{location} holds no row: point it to a dataset with rows")
    return rows


def find_files(location: str) -> list[epath.Path]:
    """Returns the files of a dataset, as `read_rows` names it, in reading order.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a split of the hub that has no file or is ambiguous.
    """
    is_hub = location.startswith(_HUB)
    return _hub_files(location) if is_hub else _local_files(location)


def scan_rows(path: epath.Path) -> Iterator[tuple[str, Row | ValueError]]:
    """Yields where each row of a file is, and the row or why it cannot be read.

    Raises:
      ValueError: the file is neither JSONL nor Parquet.
    """
    if path.suffix != ".jsonl":
        for number, row in enumerate(_read_file(path, ()), start=1):
            yield f"{path}:{number}", row
        return
    for where, line in _lines(path):
        try:
            yield where, _parse(where, line)
        except ValueError as error:
            yield where, error


def _local_files(location: str) -> list[epath.Path]:
    path = epath.Path(location)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix in _SUFFIXES]
    elif path.exists():
        return [path]
    elif set(location) & set("*?["):
        # The part before the first wildcard is a plain folder; the rest is matched.
        parts = path.parts
        first = next(i for i, part in enumerate(parts) if set(part) & set("*?["))
        folder = epath.Path(*parts[:first]) if first else epath.Path(".")
        files = list(folder.glob("/".join(parts[first:])))
    else:
        raise FileNotFoundError(f"{location} does not exist{_nearest_sibling(path)}")
    if not files:
        raise FileNotFoundError(
            f"{location} matches no file: it must hold {' or '.join(_SUFFIXES)} files"
        )
    return sorted(files)


def _nearest_sibling(path: epath.Path) -> str:
    if not path.parent.is_dir():
        return f": there is no directory {path.parent} either"
    names = [file.name for file in path.parent.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.0)
    return f": the nearest name there is {near[0]!r}" if near else ""


def _read_file(path: epath.Path, columns: Sequence[str]) -> list[Row]:
    match path.suffix:
        case ".jsonl":
            return list(_read_json_lines(path, columns))
        case ".parquet":
            return _read_parquet(path, columns)
    raise ValueError(
        f"{path} ends in {path.suffix!r}: convert it to {' or '.join(_SUFFIXES)}"
    )


def _read_json_lines(path: epath.Path, columns: Sequence[str]) -> Iterator[Row]:
    for where, line in _lines(path):
        row = _parse(where, line)
        _check_columns(where, columns, list(row))
        yield row


def _lines(path: epath.Path) -> Iterator[tuple[str, bytes]]:
    """Yields where each line is that says something, and the line."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{path}:{number}", line


def _parse(where: str, line: bytes) -> Row:
    try:
        row = json.loads(line)
    # Malformed JSON, or bytes that are not UTF-8; or nested beyond all measure.
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where} is not JSON ({error}): write one object a line"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{where} holds a {type(row).__name__}, {_shorten(row)}: write one "
            'object a line, such as {"question": "...", "answer": "..."}'
        )
    return row


def _read_parquet(path: epath.Path, columns: Sequence[str]) -> list[Row]:
    with path.open("rb") as file:
        try:
            table = pyarrow.parquet.read_table(file)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(
                f"{path} is not a Parquet file ({error}): download or write it again"
            ) from error
    _check_columns(str(path), columns, table.column_names)
    return table.to_pylist()


def _check_columns(where: str, wanted: Sequence[str], found: Sequence[str]):
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{where} has no column {missing[0]!r}: its columns are {sorted(found)}; "
            "name the right one in config.task (question_column, reference_column, "
            "solution_column)"
        )


def _hub_files(location: str) -> list[epath.Path]:
    """Downloads the files of one split and returns where they lie."""
    parts = location.removeprefix(_HUB).split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"{location!r} must read hub:dataset_id[:config]:split")
    dataset, config, split = parts[0], parts[1] if parts[2:] else "", parts[-1]
    listed = huggingface_hub.list_repo_files(dataset, repo_type="dataset")
    files = sorted(file for file in listed if _belongs(file, config, split))
    if not files:
        raise ValueError(
            f"{location}: no {' or '.join(_SUFFIXES)} file belongs to it; "
            f"{dataset} holds {_shorten(sorted(listed))}"
        )
    folders = sorted({str(epath.Path(file).parent) for file in files})
    suffixes = {epath.Path(file).suffix for file in files}
    if len(folders) > 1 or len(suffixes) > 1:
        raise ValueError(
            f"{location} is ambiguous: {_shorten(files)} all match; name a config, as "
            f"in hub:{dataset}:{epath.Path(folders[0]).name}:{split}"
        )
    return [
        epath.Path(huggingface_hub.hf_hub_download(dataset, file, repo_type="dataset"))
        for file in files
    ]


def _belongs(file: str, config: str, split: str) -> bool:
    """Whether a file's name follows a hub layout of this config and split.

    The layouts: `split.jsonl`, `data/split-00000-of-00002.parquet`,
    `config/split-....parquet`, `config/split/0000.parquet`.
    """
    path = epath.Path(file)
    if path.suffix not in _SUFFIXES:
        return False
    if config and config not in path.parts[:-1]:
        return False
    name = path.name.removesuffix(path.suffix)
    return name == split or name.startswith(f"{split}-") or split == path.parent.name


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else text[:300] + " ..."
