"""What a reader is asked for, and the file access that every reader shares."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kg_targets.errors import KGTargetsError, ManifestError
from kg_targets.manifest.record import ReadReport, unusable_text


@dataclass(frozen=True)
class ReadRequest:
    """One split of one data set."""

    split: str
    files: dict[str, Path]
    """Role to path. ``captions`` is there for captions, other roles are optional and may be absent on disk; which roles
    hold questions depends on the layout, and all of them are there."""
    images: str
    """Folder of the split's images relative to the data root; may be empty."""
    licence: str
    """The data set's own, for rows that state none."""
    options: dict[str, str]
    """The manifest's options for this layout."""
    language: str
    """Of the questions, ``en`` or ``zh``."""
    report: ReadReport
    """Filled while reading."""

    def image_path(self, name: str) -> str:
        """Path of an image relative to the data root; empty where the data set has no images."""
        return f"{self.images}/{name}" if self.images else ""

    def optional(self, role: str) -> Path | None:
        """Path of a file that may be absent, or ``None`` where it is."""
        path = self.files.get(role)
        return path if path is not None and path.is_file() else None


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of a text file, without line ends; bytes that are not UTF-8 become lone surrogates.

    Raises:
        ManifestError: the file cannot be read.
    """
    try:
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error.strerror}): check the data root") from error
    with stream:
        for number, line in enumerate(stream, start=1):
            yield f"{path.name} line {number}", line.rstrip("\r\n")


def csv_rows(
    path: Path, required: tuple[str, ...], report: ReadReport
) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a CSV file with a header; rows that cannot be used are counted in ``report`` and skipped.

    Raises:
        ManifestError: the file cannot be read, is empty, or lacks a required column.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error.strerror}): check the data root") from error
    with stream:
        rows = _until_broken(csv.reader(stream, strict=True), path)
        _, header = next(rows, (0, None))
        if header is None:
            raise ManifestError(f"{path} is empty: its first line must name the columns {','.join(required)}")
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise ManifestError(f"{path}: column {twice[0]!r} is there twice: rename or remove one of them")
        missing = [name for name in required if name not in header]
        if missing:
            raise ManifestError(
                f"{path}: column {missing[0]!r} is missing; the header has {','.join(header)}"
            )
        for number, row in rows:
            where = f"{path.name} line {number}"
            if not row:
                continue
            if len(row) != len(header):
                report.skip(f"has not {len(header)} columns", where)
                continue
            named = dict(zip(header, row, strict=True))
            problem = next(
                ((key, why) for key, value in named.items() if (why := unusable_text(value))), None
            )
            if problem is not None:
                report.skip(f"{problem[0]} {problem[1]}", where)
                continue
            yield where, named


def _until_broken(rows: Any, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, row); a quote that is never closed would swallow all that follow, so it stops the reading."""
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise ManifestError(f"{path.name} line {rows.line_num} is not valid CSV: {error}") from error


def json_lines(path: Path, report: ReadReport) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a JSON-lines file; lines that are no JSON object are counted in ``report`` and skipped.

    Raises:
        ManifestError: the file cannot be read.
    """
    for where, line in lines(path):
        if not line.strip():
            continue
        why = unusable_text(line)
        try:
            value = None if why else json.loads(line)
        except ValueError:
            why = "is not valid JSON"
        if why or not isinstance(value, dict):
            report.skip(why or "is not a JSON object", where)
            continue
        yield where, value


def json_objects(
    path: Path, report: ReadReport, error: type[KGTargetsError]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a JSON list; items that are no objects are counted and skipped.

    Raises:
        error: the file is not readable as a JSON list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as problem:
        raise error(f"{path} is not readable as JSON ({problem}): download it again") from problem
    if not isinstance(content, list):
        raise error(f"{path} must hold a JSON list of questions")
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
