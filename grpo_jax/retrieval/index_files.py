"""Directories of an index: made once, whole or not at all, and checked when opened.

manifest.json   of what corpus and with which settings it was made
corpus.arrow    the documents, in order; mapped into memory
...             what the retriever needs beside them
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from grpo_jax.retrieval import corpus as corpora
from grpo_jax.retrieval.corpus import Columns, Corpus, Counts

# Raise it with a change of what is in the files: older ones must be made again.
_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an index is to be made of.

    Attributes:
      kind: of the retriever.
      settings: everything else that its files depend on, as JSON has it.
      location: of the corpus; "" takes the corpus of an index that is there.
      columns: of the corpus.
    """

    kind: str
    settings: Mapping[str, Any]
    location: str
    columns: Columns = Columns()


@dataclasses.dataclass(frozen=True)
class Index:
    """An index on disk; `built` where it was made just now."""

    path: pathlib.Path
    manifest: Mapping[str, Any]
    corpus: Corpus
    built: bool

    def describe(self, **facts: Any) -> dict[str, Any]:
        """Returns what hits depend on, with one fingerprint of it all.

        Args:
          **facts: what they depend on beside the index.
        """
        facts |= {name: self.manifest[name] for name in ("kind", "settings")}
        facts["corpus"] = self.manifest["corpus"]["fingerprint"]
        text = json.dumps(facts, sort_keys=True)
        mark = hashlib.sha256(text.encode()).hexdigest()[:16]
        documents = self.manifest["corpus"]["counts"]["documents"]
        return {**facts, "documents": documents, "fingerprint": mark}


def default_path(location: str, kind: str) -> str:
    """Returns where the index of a corpus is kept if nothing is said: beside it.

    Raises:
      ValueError: the corpus is not one file or directory.
    """
    if location.startswith("hub:") or set(location) & set("*?["):
        raise ValueError(
            f"{location} is not one file or directory: say where its index is to be "
            "kept (--index, config.retrieval.index_path)"
        )
    return f"{location.rstrip('/')}.{kind}"


def open_index(
    path: pathlib.Path,
    spec: Spec,
    build: Callable[[pathlib.Path, Corpus, Counts], None],
    *,
    rebuild: bool = False,
) -> Index:
    """Opens an index, or makes it where there is none.

    Args:
      path: its directory.
      spec: what it must have been made of.
      build: writes the retriever's own files of a corpus into a directory.
      rebuild: makes it again, whatever is there.

    Raises:
      FileNotFoundError: neither an index nor a corpus is there.
      ValueError: an index of something else is there, or a directory of another kind.
    """
    there = (path / "manifest.json").is_file()
    if rebuild or not there:
        if not spec.location:
            raise FileNotFoundError(
                f"{path} holds no index, and no corpus is named to make it of "
                "(--corpus, config.retrieval.corpus_path)"
            )
        if path.exists() and not there and (path.is_file() or any(path.iterdir())):
            raise ValueError(
                f"{path} is there and is no index: name an empty or a new directory "
                "(--index, config.retrieval.index_path)"
            )
        _build(path, spec, build, rebuild)
    manifest = _read_manifest(path)
    _check(path, manifest, spec)
    corpus = Corpus.load(path / "corpus.arrow")
    return Index(path, manifest, corpus, built=rebuild or not there)


def _build(
    path: pathlib.Path,
    spec: Spec,
    build: Callable[[pathlib.Path, Corpus, Counts], None],
    rebuild: bool,
) -> None:
    digest = corpora.digest(spec.location)
    corpus, counts = corpora.read(spec.location, spec.columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(".partial", f"{path.name}.", path.parent))
    try:
        partial.chmod(0o755)  # as other directories are; that of mkdtemp is private
        corpus.save(partial / "corpus.arrow")
        build(partial, corpus, counts)
        manifest = {
            "version": _VERSION,
            "kind": spec.kind,
            "settings": dict(spec.settings),
            "corpus": {
                "location": spec.location,
                "digest": digest,
                "columns": vars(spec.columns),
                "counts": vars(counts),
                "fingerprint": corpus.fingerprint(),
            },
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
        if rebuild and path.exists():
            shutil.rmtree(path)
        try:
            partial.rename(path)
        except OSError:
            # Another process made it meanwhile: that one is in use, and is checked.
            if not (path / "manifest.json").is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text("utf-8"))
        names = {"version", "kind", "settings", "corpus"}
        whole = isinstance(manifest, dict) and names <= manifest.keys()
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"{file} is damaged: {_remedy(path)}")
    return manifest


def _check(path: pathlib.Path, manifest: Mapping[str, Any], spec: Spec) -> None:
    """Raises ValueError where an index was made of something else."""
    found = {"kind": manifest["kind"], "version": manifest["version"]}
    wanted = {"kind": spec.kind, "version": _VERSION}
    if found == wanted:
        found |= manifest["settings"]
        wanted |= spec.settings
        if spec.location:
            found["columns"] = manifest["corpus"]["columns"]
            wanted["columns"] = vars(spec.columns)
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ValueError(
                f"{path} was made with {name} = {found.get(name)!r} and now it is "
                f"{wanted.get(name)!r}: {_remedy(path)}"
            )
    if spec.location and corpora.digest(spec.location) != manifest["corpus"]["digest"]:
        raise ValueError(
            f"{path} was made of {manifest['corpus']['location']}, and "
            f"{spec.location} now holds something else: {_remedy(path)}"
        )


def _remedy(path: pathlib.Path) -> str:
    return (
        f"delete {path} to make it again (--rebuild of python -m grpo_jax.search does "
        "so), or name another directory for the index"
    )
