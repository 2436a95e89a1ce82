"""Ontologies kept in a folder, each under the content of its source files and how they were read.

An entry, of an ontology or of what was made of one (`kept`), is a folder with files and ``meta.json``. One process at a
time writes; the entry appears by an atomic rename, so a killed run leaves nothing half-written under its name. An entry
whose files, ``meta.json`` included, are not those that were written is made again.

Both questions, "are the sources what they were" and "is the entry what was written", are put to the sha256 of the
files' content (`remembered_sha256`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from kg_targets.errors import KGTargetsError, OntologyError
from kg_targets.ontology.compiled import Compiled
from kg_targets.ontology.concept import OntologyReport
from kg_targets.ontology.ontology import Ontology
from kg_targets.ontology.tables import require_file
from kg_targets.store.digest import file_sha256, json_sha256, remembered_sha256

READER_VERSION = 6
"""Raise it when any reader or `compiled` changes what it makes of the same files."""

_Kept = TypeVar("_Kept")


def cached(
    parts: Sequence[tuple[str, Sequence[Path]]], read: Callable[[], Ontology], cache_dir: Path
) -> Ontology:
    """The ontology of some source files: from the cache if it is there and sound, else read and kept.

    Args:
        parts: each source with its options and the name of its release as text, and the files that decide the rest of
            its content, in order of the merge.
        read: builds the ontology.
        cache_dir: created when missing.
    Raises:
        OntologyError: a source file is missing, or the folder cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        sources = [[name, *_digests(files, cache_dir)] for name, files in parts]
        entry = cache_dir / f"ontology-{json_sha256([READER_VERSION, sources])[:32]}"
        return kept(entry, _opened, lambda folder: _save(read(), folder))
    except OSError as error:
        raise OntologyError(
            f"ontology cache {cache_dir}: {error}; choose a folder that can be written"
        ) from error


def _digests(files: Sequence[Path], cache_dir: Path) -> list[tuple[str, str]]:
    """Name and sha256 of each file."""
    for path in files:
        require_file(path, "The ontology was to be read from it: check the path.")
    return [(path.name, remembered_sha256(path, cache_dir)) for path in files]


def kept(entry: Path, opened: Callable[[Path], _Kept], save: Callable[[Path], dict[str, Any]]) -> _Kept:
    """What is in an entry; where there is none or it is damaged, it is made first.

    Args:
        entry: its path in the folder of the cache.
        opened: opens it; whatever it raises because of damaged content is no harm.
        save: makes it and writes its files into a folder; returns what else ``meta.json`` is to hold.
    Raises:
        OSError: the folder cannot be written.
    """
    found = _sound(entry, opened)
    if found is None:
        with _alone(entry.parent):
            found = _sound(entry, opened)  # another process may have made it by now
            if found is None:
                _write(entry, save)
                found = opened(entry)
    return found


@contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Let one process at a time make an entry: workers start together, and each would need the memory."""
    with open(cache_dir / "entries.lock", "wb") as file:
        with suppress(ImportError, OSError):  # where there are no such locks, all of them make the same
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(entry: Path, save: Callable[[Path], dict[str, Any]]) -> None:
    folder = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f"{entry.name}.", suffix=".tmp"))
    try:
        meta = save(folder)
        digests = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        text = json.dumps({**meta, "sha256": digests})
        content = {**json.loads(text), "meta_sha256": json_sha256(json.loads(text))}
        (folder / "meta.json").write_text(json.dumps(content, indent=1), "utf-8")
        if entry.exists():  # a damaged one
            shutil.rmtree(entry, ignore_errors=True)
        with suppress(OSError):  # another process may be as far where there are no locks
            folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sound(entry: Path, opened: Callable[[Path], _Kept]) -> _Kept | None:
    """What is in an entry; None if there is none, or it is damaged in any way."""
    try:
        meta = json.loads((entry / "meta.json").read_text("utf-8"))
        if meta.pop("meta_sha256") != json_sha256(meta):
            return None
        if any(
            remembered_sha256(entry / name, entry.parent) != told for name, told in meta["sha256"].items()
        ):
            return None
        return opened(entry)
    except (OSError, KGTargetsError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _save(ontology: Ontology, folder: Path) -> dict[str, Any]:
    ontology.compiled().save(folder)
    report = asdict(ontology.report)
    return {"release": ontology.release, "fingerprint": ontology.fingerprint, "report": report}


def _opened(entry: Path) -> Ontology:
    meta = json.loads((entry / "meta.json").read_text("utf-8"))
    report = OntologyReport(**{**meta["report"], "cycles": tuple(map(tuple, meta["report"]["cycles"]))})
    data = Compiled.open(entry, report.self_loops, report.ambiguous_aliases)
    return Ontology(data, meta["release"], meta["fingerprint"], report)
