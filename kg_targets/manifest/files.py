"""Text, CSV, JSON and JSON-lines files as people have them (UTF-8 or UTF-16, plain or gzip), a place with each row."""

import csv
import gzip
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from kg_targets.errors import KGTargetsError, ManifestError, printable
from kg_targets.manifest.record import NAMED, ReadReport, unusable_text

SEPARATORS = {",": ",", ";": ";", "\t": "tab", "|": "|"}
"""What may part a table's columns, most usual first, to the word for it in a manifest."""
_QUOTED = re.compile(r'"[^"]*"')
_GZIP = b"\x1f\x8b"
_NO_TEXT = {
    b"PK\x03\x04": "is a zip file (a spreadsheet?): unpack it, or save it as CSV",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd, which is not read: unpack it, or compress it by gzip",
    _GZIP: "is compressed by gzip twice: unpack it once",
    b"PAR1": "is a Parquet file: its name must end in .parquet",
    b"\xff\xfe\0\0": "is UTF-32: save it as UTF-8",
    b"\0\0\xfe\xff": "is UTF-32: save it as UTF-8",
}
"""First bytes of files that are no text, to what to do about them."""
_TAR, _TAR_AT = b"ustar", 257
"""What a tar has at this place."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """A text file, told by its first bytes: gzip is unpacked, UTF-16 with a byte order mark is read as such.

    Bytes that are not UTF-8 become lone surrogates, so that a row of them can be counted and skipped.

    Raises:
        ManifestError: the file cannot be read, is a zip (a spreadsheet, say), or is UTF-16 without a mark.
    """
    try:
        with path.open("rb") as file:
            opened: Any = gzip.open if file.read(2) == _GZIP else open
        with opened(path, "rb") as raw:
            head = raw.read(_TAR_AT + len(_TAR))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or printable(str(error))
        raise ManifestError(f"{path} cannot be read ({reason}): check the data root") from error
    why = next((told for sign, told in _NO_TEXT.items() if head.startswith(sign)), "")
    if head[_TAR_AT:] == _TAR:
        why = "holds a tar: its name must end in .tar, and it must not be compressed"
    if why:
        raise ManifestError(f"{path} {why}")
    encoding, errors = "utf-8-sig", "surrogateescape"
    start = head[:4]
    if start.startswith(_UTF_16):
        encoding, errors = "utf-16", "replace"
    elif b"\0\0" in (start[::2], start[1::2]):
        raise ManifestError(f"{path} looks like UTF-16 without a byte order mark: save it as UTF-8")
    text: TextIO = opened(path, "rt", encoding=encoding, errors=errors, newline=newline)
    return text


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of a text file, without line ends; bytes that are not UTF-8 become lone surrogates.

    Raises:
        ManifestError: the file cannot be read.
    """
    with open_text(path, newline="\n") as stream:
        for number, line in enumerate(_readable(stream, path), start=1):
            yield f"{path.name} line {number}", line.rstrip("\r\n")


def csv_rows(
    path: Path, required: tuple[str, ...], report: ReadReport, separator: str | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a table with a header; rows that cannot be used are counted in ``report`` and skipped.

    Args:
        path: the file.
        required: columns that must be there.
        report: filled while reading.
        separator: what parts the columns; ``None``: the one of ``SEPARATORS`` that parts the header most often, what
            is in quotes aside.

    Raises:
        ManifestError: the file cannot be read, is empty, or lacks a required column.
    """
    rows = _table(path, separator)
    _, header = next(rows)
    check_columns(path, required, header)
    yield from _usable_rows(rows, header, path, report)


def csv_header(path: Path, separator: str | None = None) -> list[str]:
    """The columns of a table that have a name.

    Raises:
        ManifestError: as for ``csv_rows``.
    """
    return [name for name in next(_table(path, separator))[1] if name]


def csv_layout(path: Path, separator: str | None = None) -> tuple[str, list[str]]:
    """What parts the columns of a table, and its header, in which some columns may have no name.

    Raises:
        ManifestError: as for ``csv_rows``.
    """
    with open_text(path, newline="") as stream:
        first = next(_readable(stream, path), "")
    return separator or _separator(first), next(_table(path, separator))[1]


def csv_part(
    path: Path, lines: Iterable[str], before: int, separator: str, header: list[str], report: ReadReport
) -> Iterator[tuple[str, dict[str, str]]]:
    """The same as ``csv_rows`` of a part of the file.

    Args:
        path: the file, for messages.
        lines: of the part.
        before: lines of the file before it.
        separator: what parts the columns.
        header: of the file.
        report: filled while reading.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    rows = _until_broken(csv.reader(lines, delimiter=separator, strict=True), path)
    yield from _usable_rows(((before + number, row) for number, row in rows), header, path, report)


def _separator(first: str) -> str:
    """The separator that parts a header most often."""
    return max(SEPARATORS, key=_QUOTED.sub("", first).count)


def _table(path: Path, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    """(line, row), the header first."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_text(path, newline="") as stream:
        text = _readable(stream, path)
        first = next(text, "")
        separator = separator or _separator(first)
        rows = _until_broken(csv.reader(chain([first], text), delimiter=separator, strict=True), path)
        number, header = next(rows, (0, []))
        header = [name.strip() for name in header]
        if not any(header):
            raise ManifestError(f"{path} is empty: its first line must name the columns")
        twice = next((name for name, count in Counter(header).items() if name and count > 1), None)
        if twice is not None:
            raise ManifestError(f"{path}: column {twice!r} is there twice: rename or remove one of them")
        yield number, header
        yield from rows


def check_columns(path: Path, required: Iterable[str], header: list[str]) -> None:
    """Check that a header has the columns that a layout needs.

    Raises:
        ManifestError: one is missing.
    """
    missing = next((name for name in required if name not in header), None)
    if missing is not None:
        raise ManifestError(
            f"{path}: column {missing!r} is missing; the header has {printable(shortened(header))}"
        )


def shortened(names: Iterable[str], most: int = NAMED) -> str:
    """``a, b, c and 7 more``, for messages."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(name[:60] for name in listed[:most]) + more


def _usable_rows(
    rows: Iterator[tuple[int, list[str]]], header: list[str], path: Path, report: ReadReport
) -> Iterator[tuple[str, dict[str, str]]]:
    for number, row in rows:
        where = f"{path.name} line {number}"
        if not row:
            continue
        if len(row) != len(header):
            report.skip(f"has not {len(header)} columns", where)
            continue
        named = {name: value for name, value in zip(header, row, strict=True) if name}
        problem = next(((key, why) for key, value in named.items() if (why := unusable_text(value))), None)
        if problem is not None:
            report.skip(f"{problem[0]} {problem[1]}", where)
            continue
        yield where, named


def _readable(stream: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file that may turn out to be damaged."""
    try:
        yield from stream
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ManifestError(f"{path} is damaged ({printable(str(error))}): download it again") from error


def _until_broken(rows: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, row); a quote that is never closed would swallow all that follow, so it stops the reading."""
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise ManifestError(
            f"{path.name} line {rows.line_num} is not valid CSV ({error}): a text that holds separators, quotes or "
            "line breaks must be in quotes, and quotes in it must be double"
        ) from error


def json_lines(path: Path, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a JSON-lines file; lines that are no JSON object are counted in ``report`` and skipped.

    Raises:
        ManifestError: the file cannot be read.
    """
    yield from _json_rows(lines(path), report)


def json_part(
    name: str, lines: Iterable[str], before: int, report: ReadReport
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same as ``json_lines`` of a part of the file ``name``, which has ``before`` lines before it."""
    numbered = enumerate(lines, start=before + 1)
    yield from _json_rows(
        ((f"{name} line {number}", line.rstrip("\r\n")) for number, line in numbered), report
    )


def _json_rows(lines: Iterable[tuple[str, str]], report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in lines:
        if not line.strip():
            continue
        why = unusable_text(line)
        try:
            value = None if why else json.loads(line)
        except (ValueError, RecursionError):
            why = "is not valid JSON"
        if why or not isinstance(value, dict):
            report.skip(why or "is not a JSON object", where)
            continue
        yield where, value


def json_content(path: Path, error: type[KGTargetsError]) -> Any:
    """The content of a JSON file.

    Raises:
        error: it cannot be read as JSON.
    """
    try:
        with open_text(path) as stream:
            return json.loads(stream.read())
    except ManifestError as problem:
        raise error(str(problem)) from problem
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as problem:
        reason = printable(str(problem))
        raise error(f"{path} is not readable as JSON ({reason}): download it again") from problem


def json_objects(
    path: Path, report: ReadReport, error: type[KGTargetsError]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a JSON list; items that are no objects are counted and skipped.

    Raises:
        error: the file is not readable as a JSON list.
    """
    content = json_content(path, error)
    if not isinstance(content, list):
        raise error(f"{path} must hold a JSON list of objects")
    yield from objects(content, path, report)


def objects(content: list[Any], path: Path, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a list; items that are no objects are counted and skipped."""
    for number, item in enumerate(content):
        where = f"{path.name} item {number}"
        if isinstance(item, dict):
            yield where, item
        else:
            report.skip("is not an object", where)


def text(item: dict[str, Any], key: str) -> str:
    """A field as text: numbers (some answers are) as they print, anything missing as nothing."""
    value = item.get(key)
    return "" if value is None else str(value)
