"""Ranges of a split's files, which many processes read at once: places to cut CSV and JSON lines, and what is between.

A file is cut at ends of lines that end a row: every line of JSON lines, and of a CSV those outside quotes. That is told
by counting quotes, which is right where each opening quote follows a separator or an end of line. A file where one
does not, or that is gzip or UTF-16, or whose image ids follow from all paths together, is not cut: whoever asked for
ranges reads it from the front, as ``Manifest.records`` does.
"""

import gzip
import io
import mmap
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kg_targets.errors import ManifestError
from kg_targets.manifest.files import csv_layout, csv_part, json_part, open_text
from kg_targets.manifest.readers.tables import JSON_LINES, key_filter, separator_of, text_kind
from kg_targets.manifest.record import ReadReport, ReadRequest, Record, checked_records
from kg_targets.manifest.table_rows import Shape, checked_columns
from kg_targets.manifest.values import with_inner

_AT_ONCE = 1 << 24  # bytes that are looked through at once


class FileRange(NamedTuple):
    """A run of whole rows."""

    file: int
    """Place of the file among the split's."""
    start: int
    """First byte."""
    stop: int
    """Byte after the last."""
    before: int
    """Lines of the file before the first."""


class RangeReader:
    """Reader of a split's files by ranges; made by ``range_reader``."""

    def __init__(self, request: ReadRequest, files: tuple[Path, ...], is_json: bool) -> None:
        self.request, self.files, self.is_json = request, files, is_json
        self.shapes: list[Shape] = []
        self._layouts = [] if is_json else [csv_layout(path, separator_of(request)) for path in files]

    def ranges(self, rows: int) -> list[FileRange] | None:
        """The files cut after every ``rows`` rows; None if they cannot be cut."""
        found: list[FileRange] = []
        for number, path in enumerate(self.files):
            ends = _row_ends(path, None if self.is_json else self._layouts[number][0])
            if ends is None:
                return None
            places, lines = ends
            first = 0 if self.is_json else 1  # the header
            cuts = [*range(first, len(places), rows), len(places)]
            starts = np.concatenate([[0], places])
            found += [
                FileRange(number, int(starts[a]), int(starts[b]), int(lines[a - 1]) if a else 0)
                for a, b in pairwise(cuts)
            ]
        return found

    def keys(self, part: FileRange) -> list[str]:
        """Keys of a range of JSON lines, in the order in which they are first seen."""
        wanted = key_filter(self.request)
        rows = json_part(self.files[part.file].name, self._lines(part), part.before, ReadReport())
        return list(dict.fromkeys(key for _, row in rows for key in with_inner(row, wanted)))

    def take_columns(self, keys: list[dict[str, None]], report: ReadReport) -> bool:
        """Tell the columns of each file; False if they do not give every row its id by itself.

        Args:
            keys: of each file of JSON lines.
            report: receives which are used.

        Raises:
            ManifestError: a needed column is missing.
        """
        request = replace(self.request, report=report)
        for number, path in enumerate(self.files):
            names = (
                list(keys[number]) if self.is_json else [name for name in self._layouts[number][1] if name]
            )
            columns = checked_columns(request, names, str(path), images_inside=False)
            if "image_id" not in columns.fields:
                return False
            self.shapes.append(Shape(columns, request))
        return True

    def records(
        self,
        part: FileRange,
        report: ReadReport,
        licences: frozenset[str] | None,
        excluded: frozenset[str],
        ids: list[str],
    ) -> Iterator[Record]:
        """The records of a range, as ``Manifest.records`` gives them; ``ids`` receives every image id that is read.

        Raises:
            ManifestError: a row is malformed, or an image path leaves the data root.
        """

        def read(counted: ReadReport) -> Iterator[tuple[str, Record]]:
            request = replace(self.request, report=counted)
            shape = Shape(self.shapes[part.file].columns, request)
            for place, row in self._rows(part, counted):
                record = shape.record(place, row, with_folders=False, by_place=False)
                if record is not None:
                    yield place, record

        return checked_records(read, licences, report, excluded, ids)

    def _rows(self, part: FileRange, report: ReadReport) -> Iterator[tuple[str, Any]]:
        name = self.files[part.file].name
        if self.is_json:
            wanted = key_filter(self.request)
            rows = json_part(name, self._lines(part), part.before, report)
            return ((place, with_inner(row, wanted)) for place, row in rows)
        separator, header = self._layouts[part.file]
        return csv_part(self.files[part.file], self._lines(part), part.before, separator, header, report)

    def _lines(self, part: FileRange) -> io.StringIO:
        with self.files[part.file].open("rb") as stream:
            stream.seek(part.start)
            content = stream.read(part.stop - part.start)
        encoding = "utf-8-sig" if part.start == 0 else "utf-8"
        return io.StringIO(content.decode(encoding, errors="surrogateescape"), newline="")


def range_reader(request: ReadRequest) -> RangeReader | None:
    """A reader of the tables of a split by ranges; None where it has files that cannot be cut."""
    files = request.all_files("captions")
    kinds = {text_kind(path) for path in files}
    if len(kinds) != 1 or None in kinds or not all(map(_is_plain, files)):
        return None
    return RangeReader(request, files, kinds == {JSON_LINES})


def _is_plain(path: Path) -> bool:
    """Whether a file is UTF-8 and not compressed."""
    try:
        with open_text(path) as stream:
            buffer: Any = getattr(stream, "buffer", None)
            return stream.encoding.startswith("utf-8") and not isinstance(buffer, gzip.GzipFile)
    except ManifestError:
        return False


def _row_ends(path: Path, separator: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Byte behind each row, and lines up to there; None where a file cannot be cut.

    Args:
        path: the file.
        separator: of a CSV's columns; None for JSON lines.
    """
    size = path.stat().st_size
    if not size:
        return None
    places, lines, quotes, line_count, before = [], [], 0, 0, b"\n"
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start in range(0, size, _AT_ONCE):
            block = np.frombuffer(content[start : start + _AT_ONCE], dtype=np.uint8)
            returns = np.flatnonzero(block == 13)
            behind = content[start + len(block) : start + len(block) + 1]
            after = np.append(block, np.frombuffer(behind or b"\n", dtype=np.uint8))
            if (after[returns + 1] != 10).any():
                return None  # a line may end with a carriage return alone
            ends = np.flatnonzero(block == 10)
            if separator is not None:
                marks = np.flatnonzero(block == 34)
                opening = marks[(quotes + np.arange(len(marks))) % 2 == 0]
                previous = np.concatenate([np.frombuffer(before, dtype=np.uint8), block])[opening]
                if not np.isin(previous, np.frombuffer(f'\n{separator}"'.encode(), dtype=np.uint8)).all():
                    return None
                outside = (quotes + np.searchsorted(marks, ends)) % 2 == 0
                quotes += len(marks)
            else:
                outside = np.ones(len(ends), dtype=bool)
            numbers = line_count + 1 + np.arange(len(ends))
            places.append(start + ends[outside] + 1)
            lines.append(numbers[outside])
            line_count += len(ends)
            before = block[-1:].tobytes()
    found, numbered = np.concatenate(places), np.concatenate(lines)
    if not len(found) or found[-1] != size:
        found, numbered = np.append(found, size), np.append(numbered, line_count + 1)
    return found, numbered
