"""Ontologies kept in a folder, each under the content of its source files and how they were read.

An entry, of an ontology or of what was made of one (`kept`), is a folder with files and ``meta.json``. One process at a
time writes; the entry appears by an atomic rename, so a killed run leaves nothing half-written under its name. An entry
whose files are not those that were written is made again.

Both questions, "are the sources what they were" and "is the entry what was written", are put to the sha256 of the
files' content. Hashing a full release takes longer than opening it, so a digest is remembered for as long as the file's
device, inode, size, modification time and **change time** stay. Anybody can set a modification time back; the change
time is the kernel's own: every write, truncation, renaming or setting of times moves it on, and there is no call to
set it. It moves in ticks, so a file that changed less than two seconds before it was hashed is hashed again the next
time. Where the system's clock was set back in between, or the folder is not on a POSIX file system, that is no proof:
on Windows, whose change time is the time of creation, nothing is remembered.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
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
from kg_targets.store.digest import file_sha256, json_sha256, text_sha256

READER_VERSION = 6
"""Raise it when any reader or `compiled` changes what it makes of the same files."""

_SETTLED_NS = 2_000_000_000
"""Age at which a change of a file is told apart from the next one, whatever the file system's clock ticks in."""

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


def remembered_sha256(path: Path, cache_dir: Path) -> str:
    """sha256 of a file, computed again only where it may have changed; see the module.

    Args:
        path: the file.
        cache_dir: folder with the notes of what was computed before.
    """
    stamp = _stamp(path)
    note = cache_dir / f"digest-{text_sha256(stamp[0])[:32]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text("utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    begin = time.time_ns()
    digest = file_sha256(path)
    settled = max(path.stat().st_ctime_ns, path.stat().st_mtime_ns) + _SETTLED_NS < begin
    if os.name == "posix" and settled and _stamp(path) == stamp:
        _write_atomically(note, json.dumps({"stamp": stamp, "sha256": digest}))
    return digest


def _stamp(path: Path) -> list[Any]:
    found = path.stat()
    times = [found.st_mtime_ns, found.st_ctime_ns]
    return [str(path.resolve()), found.st_dev, found.st_ino, found.st_size, *times]


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
    ) as stream:
        stream.write(text)
    Path(stream.name).replace(path)


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
        (folder / "meta.json").write_text(json.dumps({**meta, "sha256": digests}, indent=1), "utf-8")
        if entry.exists():  # a damaged one
            shutil.rmtree(entry, ignore_errors=True)
        with suppress(OSError):  # another process may be as far where there are no locks
            folder.rename(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sound(entry: Path, opened: Callable[[Path], _Kept]) -> _Kept | None:
    """What is in an entry; None if there is none, or it is damaged in any way."""
    try:
        digests = json.loads((entry / "meta.json").read_text("utf-8"))["sha256"]
        if any(remembered_sha256(entry / name, entry.parent) != told for name, told in digests.items()):
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
