"""Text files as they come: gzip or plain, byte-order mark, CRLF, and lines that are no UTF-8."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from kg_targets.errors import OntologyError

_BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, skipped: Counter[str]) -> Iterator[str]:
    """Stream the lines of a file without their ends.

    A line that is not UTF-8, or has a NUL byte in it, is left out and counted in ``skipped``.

    Raises:
        OntologyError: the file cannot be opened, or its compression is broken.
    """
    try:
        with _open(path) as stream:
            for number, raw in enumerate(stream):
                line = raw.removeprefix(_BOM) if number == 0 else raw
                if b"\0" in line:
                    skipped[f"{path.name}: line with a NUL byte"] += 1
                    continue
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    skipped[f"{path.name}: line that is not UTF-8"] += 1
    except (OSError, EOFError, zlib.error) as error:
        raise OntologyError(
            f"{path}: cannot be read ({error}); check the file and its permissions"
        ) from error


def read_rows(path: Path, width: int, separator: str, skipped: Counter[str]) -> Iterator[list[str]]:
    """Stream the rows of a table; empty lines are passed over, rows of another width are counted."""
    for line in read_lines(path, skipped):
        if not line:
            continue
        cells = line.split(separator)
        if len(cells) == width:
            yield cells
        else:
            skipped[f"{path.name}: row without {width} columns"] += 1


def read_table(path: Path, header: list[str], skipped: Counter[str]) -> Iterator[list[str]]:
    """Stream the rows of a tab-separated table below its header line.

    Raises:
        OntologyError: the first line is not the expected header.
    """
    rows = read_lines(path, skipped)
    first = next(rows, "")
    if first.split("\t") != header:
        expected = ", ".join(header)
        raise OntologyError(
            f"{path}: the first line is not the header of this table; it must hold, by tabs: {expected}"
        )
    for line in rows:
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) == len(header):
            yield cells
        else:
            skipped[f"{path.name}: row without {len(header)} columns"] += 1


def require_file(path: Path, what: str) -> Path:
    """The path itself, if a file is there.

    Raises:
        OntologyError: there is none; ``what`` says what to do about it.
    """
    if not path.is_file():
        raise OntologyError(f"{path} does not exist. {what}")
    return path


def _open(path: Path) -> BinaryIO:
    """Open for reading bytes; gzip is recognised by its first two bytes, whatever the file is called."""
    stream = path.open("rb")
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    return stream
