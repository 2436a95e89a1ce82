"""One image–caption pair and its checks; skipped rows by reason; a reader's request and its file access."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from kg_targets.errors import DataError, KGTargetsError, ManifestError

_CUI = re.compile(r"[Cc]\d{7}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """An image with its caption, as every data set is read."""

    image_id: str
    """Unique within the split."""
    image_path: str
    """Relative to the data root, with forward slashes; empty where the data set has no images here."""
    caption: str
    group_id: str
    """Case or patient; images that share it are not independent. Defaults to the image's own id."""
    licence: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    """Label name to value; an empty value means that the label is missing."""
    cuis: tuple[str, ...] = ()
    """Concepts that the data set itself ships."""


@dataclass
class ReadReport:
    """Counts of rows read and skipped; a skipped row is always reported, never silent."""

    read: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason to number of rows."""
    notes: dict[str, int] = field(default_factory=dict)
    """Remark about rows that were kept, to its count."""
    first: dict[str, str] = field(default_factory=dict)
    """Reason to the first place where it happened."""
    listed: int = 0
    """Cases that were to be left out."""
    excluded: dict[str, int] = field(default_factory=dict)
    """Those of them that were there, to their number of images."""

    def skip(self, reason: str, where: str) -> None:
        """Count one row as skipped for ``reason``; ``where`` is kept for the first one."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self.first.setdefault(reason, where)

    def note(self, what: str, where: str) -> None:
        """Count something a person should know of a row that is kept; ``where`` is kept for the first one."""
        self.notes[what] = self.notes.get(what, 0) + 1
        self.first.setdefault(what, where)

    def lines(self) -> list[str]:
        """One line per reason, for people; what was left out on purpose first."""
        skipped = [
            f"skipped {n:,} row(s): {reason} (first: {self.first[reason]})"
            for reason, n in self.skipped.items()
        ]
        noted = [f"{n:,} × {what} (first: {self.first[what]})" for what, n in self.notes.items()]
        return [*self._excluded_lines(), *skipped, *noted]

    def _excluded_lines(self) -> list[str]:
        if not self.listed:
            return []
        if not self.excluded:
            return [f"none of the {self.listed:,} excluded case(s) found"]
        found, images = len(self.excluded), sum(self.excluded.values())
        return [f"{found:,} of the {self.listed:,} excluded case(s) found, {images:,} image(s) left out"]


def unusable_text(text: str) -> str | None:
    """Reason why a field cannot be kept: NUL bytes or bytes that were not UTF-8 (lone surrogates); else ``None``."""
    if "\0" in text:
        return "contains a NUL byte"
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        return "is not valid UTF-8"
    return None


def safe_relative_path(path: str, where: str) -> str:
    """``path`` with forward slashes, if it stays inside the data root.

    Raises:
        ManifestError: the path is absolute or climbs out with ``..``; nothing outside the root is ever opened.
    """
    posix = path.replace("\\", "/")
    if posix.startswith("/") or ".." in posix.split("/") or PureWindowsPath(path).drive:
        raise ManifestError(
            f"{where}: image path {path!r} points outside the data root: use a path relative to it"
        )
    return posix


def checked_records(
    records: Iterator[tuple[str, Record]],
    licences: frozenset[str] | None,
    report: ReadReport,
    excluded: frozenset[str] = frozenset(),
) -> Iterator[Record]:
    """Check what every data set promises: paths stay inside the data root, ids are unique, licences are as requested.

    Args:
        records: pairs of (place, record).
        licences: the licences whose rows are kept; ``None`` keeps all.
        excluded: cases whose rows are left out, whatever else is true of them.

    Raises:
        ManifestError: an image path leaves the data root.
        DataError: two rows have the same image id: one of them would silently win otherwise.
    """
    seen: dict[str, str] = {}
    report.listed = len(excluded)
    for where, record in records:
        path = safe_relative_path(record.image_path, where)
        if record.image_id in seen:
            raise DataError(
                f"{where}: image id {record.image_id!r} was already given at {seen[record.image_id]}: "
                "ids must be unique within a split, remove or rename one of them"
            )
        seen[record.image_id] = where
        if record.group_id in excluded:
            report.excluded[record.group_id] = report.excluded.get(record.group_id, 0) + 1
            continue
        if licences is not None and record.licence not in licences:
            report.skip(f"licence {record.licence or 'not stated'!r} was not asked for", where)
            continue
        report.read += 1
        cuis = tuple(cui.upper() for cui in record.cuis if _CUI.fullmatch(cui))
        for _ in range(len(record.cuis) - len(cuis)):
            report.note("shipped CUI is malformed (not C and seven digits), left out", where)
        if path != record.image_path or cuis != record.cuis:
            record = replace(record, image_path=path, cuis=cuis)
        yield record


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
    """Language of the questions, ``en`` or ``zh``."""
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
