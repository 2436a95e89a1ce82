"""Digests of files, texts and plain values, and the key by which names are shuffled alike everywhere.

All are SHA-256. Their values are keys of stores, caches and runs that exist: what a function gives must never change.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def text_sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_sha256(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """SHA-256 of plain values as JSON, keys in order; ``default`` as ``json.dumps`` takes it."""
    return text_sha256(json.dumps(value, sort_keys=True, default=default))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
