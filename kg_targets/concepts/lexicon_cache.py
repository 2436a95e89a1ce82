"""Lexicons kept beside the compiled ontology: built once, then mapped into memory and shared by all processes.

An entry is a folder with one ``.npy`` file for each column and ``meta.json``, under a name made of everything that the
lexicon depends on. It appears by an atomic rename, so that a killed run leaves nothing half-written under its name. An
entry that is damaged is built again. Nothing in it is pickled.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    found = _load(entry)
    if found is None:
        try:
            with _alone(entry.parent):
                if _load(entry) is None:
                    _save(build_lexicon(ontology, stop_list, options), entry)
        except OSError as error:
            raise ExtractionError(
                f"lexicon cache {entry.parent}: {error}; choose a folder that can be written"
            ) from error
        found = opened_lexicon(entry)
    return found


@contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Let one process at a time build: workers start together, and each would need the memory."""
    with open(cache_dir / "lexicons.lock", "wb") as file:
        with suppress(ImportError, OSError):  # where there are no such locks, all of them build the same
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def opened_lexicon(entry: Path) -> Lexicon:
    """The lexicon of an entry, mapped into memory.

    Raises:
        ExtractionError: it is missing or damaged.
    """
    found = _load(entry)
    if found is None:
        raise ExtractionError(f"lexicon cache {entry}: gone or damaged; run the command again")
    return found


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


def _save(lexicon: Lexicon, entry: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f"{entry.name}.", suffix=".tmp"))
    try:
        sizes = {}
        for name, array in _columns(lexicon).items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
            sizes[name] = (folder / f"{name}.npy").stat().st_size
        (folder / "meta.json").write_text(json.dumps({"skipped": lexicon.skipped, "sizes": sizes}), "utf-8")
        if entry.exists():  # a damaged one, or another process was faster: the content is the same
            shutil.rmtree(entry, ignore_errors=True)
        with suppress(OSError):  # another process may put its own there between the two lines
            folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _load(entry: Path) -> Lexicon | None:
    """The lexicon of an entry; None if there is none, or it is not as long as it was."""
    try:
        meta = json.loads((entry / "meta.json").read_text("utf-8"))
        if any((entry / f"{name}.npy").stat().st_size != size for name, size in meta["sizes"].items()):
            return None

        def columns(group: str, fields: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
            files = {name: entry / f"{group}-{name}.npy" for name in fields}
            return {name: _mapped(file) for name, file in files.items()}

        names, exacts = (Strings(**columns(group, Strings._fields)) for group in ("names", "exacts"))
        about = Concepts(**columns("concepts", ("cuis", "roles")), names=names, exacts=exacts)
        return Lexicon(
            PatternIndex(**columns("index", PatternIndex._fields)),
            Senses(**columns("senses", Senses._fields)),
            about,
            meta["skipped"],
            (opened_lexicon, entry.absolute()),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(file: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray)
