"""Digests of files, texts and plain values, and the key by which names are shuffled alike everywhere.

All are SHA-256. Their values are keys of stores, caches and runs that exist: what a function gives must never change.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.store.files import at_once

_SETTLED_NS = 2_000_000_000
"""Age at which a change of a file is told apart from the next one, whatever the file system's clock ticks in."""


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_sha256(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """SHA-256 of plain values as JSON, keys in order; ``default`` as ``json.dumps`` takes it."""
    return text_sha256(json.dumps(value, sort_keys=True, default=default))


def fingerprint(manifest: dict[str, Any]) -> str:
    """sha256 over a manifest's content (checksums, configuration); two stores with the same one hold the same targets.

    ``inputs``, which decides whether a store is up to date, stays out: newer code that gives the same bytes gives the
    same store.
    """
    content = {key: value for key, value in manifest.items() if key not in ("fingerprint", "inputs")}
    return json_sha256(content)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_sha256(path: Path, cache_dir: Path) -> str:
    """SHA-256 of a file's bytes, computed again only where they may have changed.

    Hashing large files takes longer than mapping them, so a digest is remembered for as long as the file's device,
    inode, size, modification time and **change time** stay. Anybody can set a modification time back; the change time
    is the kernel's own: every write, truncation, renaming or setting of times moves it on, and there is no call to set
    it. It moves in ticks, so a file that changed less than two seconds before it was hashed is hashed again the next
    time. Where the system's clock was set back in between, or the folder is not on a POSIX file system, that is no
    proof: on Windows, whose change time is the time of creation, nothing is remembered.

    Args:
        path: the file.
        cache_dir: folder with the notes of what was computed before; where it cannot be written there are none.
    Raises:
        OSError: the file cannot be read.
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
        with suppress(OSError), at_once(note) as partial:
            partial.write_text(json.dumps({"stamp": stamp, "sha256": digest}), "utf-8")
    return digest


def _stamp(path: Path) -> list[Any]:
    found = path.stat()
    times = [found.st_mtime_ns, found.st_ctime_ns]
    return [str(path.resolve()), found.st_dev, found.st_ino, found.st_size, *times]


def container_sha256(path: Path, ends: int = 1 << 20, limit: int = 200_000_000) -> str:
    """SHA-256 of a file that holds images, too: above ``limit`` bytes, of its size and ``ends`` bytes at either end.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size <= limit:
        return file_sha256(path)
    with path.open("rb") as stream:
        digest = hashlib.sha256(f"{size}\n".encode() + stream.read(ends))
        stream.seek(size - ends)
        digest.update(stream.read(ends))
    return digest.hexdigest()


def files_sha256(paths: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of files, in the order given; their folders play no part.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\n".encode() + bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def shuffle_key(*parts: object) -> bytes:
    """Sort key of a shuffle that no library version changes: 32 bytes that follow from the parts."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).digest()


def key64(texts: Iterable[str]) -> NDArray[np.uint64]:
    """64 bits of each text, to tell millions of them apart in little memory."""
    digests = (hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8")
