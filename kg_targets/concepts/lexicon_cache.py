"""Lexicons kept beside the compiled ontology: built once, then mapped into memory and shared by all processes.

An entry (`kg_targets.ontology.cache.kept`) has one ``.npy`` file for each column, under a name made of everything that
the lexicon depends on. Nothing in it is pickled.
"""

from __future__ import annotations

import json
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kg_targets.concepts.lexicon import Concepts, Lexicon, Senses, Strings
from kg_targets.concepts.lexicon_build import LexiconOptions, build_lexicon
from kg_targets.concepts.matcher import PatternIndex
from kg_targets.concepts.shorthand import SHIPPED
from kg_targets.concepts.stop_list import StopList
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Ontology
from kg_targets.ontology.cache import kept
from kg_targets.store.digest import file_sha256, json_sha256

_CODE = (
    "lexicon", "lexicon_build", "lexicon_cache", "lexicon_columns", "matcher", "predicates", "shorthand", "stop_list",
    "text", "variants",
)  # fmt: skip
"""Modules that decide what is in a lexicon."""


def cached_lexicon(ontology: Ontology, stop_list: StopList, options: LexiconOptions) -> Lexicon:
    """The lexicon of an ontology: from its cache if it has one, else built, and kept where there is a cache.

    Raises:
        ExtractionError: the cache cannot be written.
    """
    if ontology.cache_dir is None:
        return build_lexicon(ontology, stop_list, options)
    entry = Path(ontology.cache_dir) / f"lexicon-{_key(ontology, stop_list, options)[:32]}"
    try:
        return kept(
            entry, opened_lexicon, lambda folder: _save(build_lexicon(ontology, stop_list, options), folder)
        )
    except OSError as error:
        raise ExtractionError(
            f"lexicon cache {entry.parent}: {error}; choose a folder that can be written"
        ) from error


def _key(ontology: Ontology, stop_list: StopList, options: LexiconOptions) -> str:
    chosen = (options.kinds, options.semantic_types, options.trusted)
    return json_sha256(
        [
            ontology.fingerprint,
            sorted([entry.alias, entry.cui] for entry in stop_list.entries),
            [None if names is None else sorted(names) for names in chosen],
            _code(),
        ]
    )


@lru_cache(1)
def _code() -> list[str]:
    """Digests of the code and the tables, and the version of Unicode by which characters are told apart."""
    here = Path(__file__).parent
    files = [*(here / f"{name}.py" for name in _CODE), SHIPPED]
    return [unicodedata.unidata_version, *map(file_sha256, files)]


def _columns(lexicon: Lexicon) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a lexicon by name."""
    concepts = lexicon.concepts._asdict()
    groups = {
        "index": lexicon.index._asdict(),
        "senses": lexicon.columns._asdict(),
        "names": concepts.pop("names")._asdict(),
        "exacts": concepts.pop("exacts")._asdict(),
        "concepts": concepts,
    }
    return {f"{group}-{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def _save(lexicon: Lexicon, folder: Path) -> dict[str, Any]:
    for name, array in _columns(lexicon).items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return {"skipped": lexicon.skipped}


def opened_lexicon(entry: Path) -> Lexicon:
    """The lexicon of an entry, mapped into memory.

    Raises:
        ExtractionError: it is missing or damaged.
    """

    def columns(group: str, fields: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
        files = {name: entry / f"{group}-{name}.npy" for name in fields}
        return {name: _mapped(file) for name, file in files.items()}

    try:
        names, exacts = (Strings(**columns(group, Strings._fields)) for group in ("names", "exacts"))
        about = Concepts(**columns("concepts", ("cuis", "roles")), names=names, exacts=exacts)
        return Lexicon(
            PatternIndex(**columns("index", PatternIndex._fields)),
            Senses(**columns("senses", Senses._fields)),
            about,
            json.loads((entry / "meta.json").read_text("utf-8"))["skipped"],
            (opened_lexicon, entry.absolute()),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExtractionError(f"lexicon cache {entry}: gone or damaged; run the command again") from error


def _mapped(file: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray)
