"""One image–caption pair and its checks; skipped rows by reason; what a reader is asked for."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PureWindowsPath

from kg_targets.errors import DataError, ManifestError, printable
from kg_targets.manifest.images import USUAL_ENDING, ImageFolder, ending

NAMED = 12
"""Columns that a message names."""
_BREAK = re.compile(r"[\r\n]")
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
    places: tuple[tuple[int, int], ...] = ()
    """Start and end of each of ``cuis`` in the caption, code points; (-1, -1) or nothing at all where none is given."""


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
    used: dict[str, str] = field(default_factory=dict)
    """What a layout with free columns reads, to the column it is read from."""
    ignored: dict[str, str] = field(default_factory=dict)
    """Columns that are not used, to what they are likely meant for; empty where nothing suggests itself."""
    listed: int = 0
    """Cases that were to be left out."""
    excluded: dict[str, int] = field(default_factory=dict)
    """Those of them that were there, to their number of images."""

    def add(self, other: "ReadReport") -> None:
        """Add the counts of rows that come after these."""
        self.read += other.read
        self.listed = max(self.listed, other.listed)
        for mine, theirs in (
            (self.skipped, other.skipped), (self.notes, other.notes), (self.excluded, other.excluded),
        ):  # fmt: skip
            for key, count in theirs.items():
                mine[key] = mine.get(key, 0) + count
        self.first = {**other.first, **self.first}

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
        return [
            printable(line) for line in (*self._excluded_lines(), *skipped, *noted, *self._ignored_line())
        ]

    def _ignored_line(self) -> list[str]:
        """The columns that are not used, those with a likely intention first."""
        order = sorted(self.ignored, key=lambda name: not self.ignored[name])
        told = [f"{name[:60]} ({self.ignored[name]})" if self.ignored[name] else name[:60] for name in order]
        more = f" and {len(told) - NAMED:,} more" if len(told) > NAMED else ""
        return [f"columns that are not used: {', '.join(told[:NAMED])}{more}"] if told else []

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
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not valid UTF-8 (save the file as UTF-8)"
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
    read: Callable[[ReadReport], Iterator[tuple[str, Record]]],
    licences: frozenset[str] | None,
    report: ReadReport,
    excluded: frozenset[str] = frozenset(),
    ids: list[str] | None = None,
) -> Iterator[Record]:
    """Check what every data set promises: texts are usable, paths stay inside the data root, ids are unique.

    Of an id 64 bits are kept, so that tens of millions fit. Where they are there twice, the rows before are read again.

    Args:
        read: starts to give pairs of (place, record), counting problems in a report.
        licences: the licences whose rows are kept; ``None`` keeps all.
        report: filled while reading.
        excluded: cases whose rows are left out, whatever else is true of them.
        ids: receives all image ids, where someone else sees to it that they are unique.

    Raises:
        ManifestError: an image path leaves the data root.
        DataError: two rows have the same image id: one of them would silently win otherwise.
    """
    seen = set[int]()
    report.listed = len(excluded)
    for number, (where, record) in enumerate(read(report)):
        if why := _unusable(record):
            report.skip(why, where)
            continue
        path = safe_relative_path(record.image_path, where)
        key = hash(record.image_id)
        if ids is not None:
            ids.append(record.image_id)
        if ids is None and key in seen:
            before = islice(read(ReadReport()), number)
            first = next((place for place, other in before if other.image_id == record.image_id), None)
        else:
            first = None
        if first is not None:
            raise DataError(
                f"{where}: image id {record.image_id!r} was already given at {first}: "
                "ids must be unique within a split, remove or rename one of them (several captions of one image: each "
                "needs an id of its own)"
            )
        if ids is None:
            seen.add(key)
        if record.group_id in excluded:
            report.excluded[record.group_id] = report.excluded.get(record.group_id, 0) + 1
            continue
        if licences is not None and record.licence not in licences:
            report.skip(f"licence {record.licence or 'not stated'!r} was not asked for", where)
            continue
        report.read += 1
        good = [place for place, cui in enumerate(record.cuis) if _CUI.fullmatch(cui)]
        for _ in range(len(record.cuis) - len(good)):
            report.note("shipped CUI is malformed (not C and seven digits), left out", where)
        cuis = tuple(record.cuis[place].upper() for place in good)
        if path != record.image_path or cuis != record.cuis:
            places = tuple(record.places[place] for place in good) if record.places else ()
            record = replace(record, image_path=path, cuis=cuis, places=places)
        yield record


def _unusable(record: Record) -> str | None:
    """Reason why a record cannot be kept, by what its texts hold once they are decoded; ``None`` if it can."""
    texts = {
        "image_id": record.image_id,
        "group_id": record.group_id,
        "image path": record.image_path,
        "caption": record.caption,
        "licence": record.licence,
    }
    labels = ((f"label {name}", value) for name, value in record.labels.items())
    for name, value in chain(texts.items(), labels):
        if why := unusable_text(value):
            return f"{name} {why}"
    return (
        "image_id or group_id has a line break" if _BREAK.search(record.image_id + record.group_id) else None
    )


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
    folder: ImageFolder
    """The image files below the data root."""
    several: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    """Role to paths, where a role has several files."""

    def all_files(self, role: str) -> tuple[Path, ...]:
        """The files of a role in their order, at least one."""
        return self.several.get(role, (self.files[role],))

    def image_path(self, name: str) -> str:
        """Path of an image relative to the data root; empty where the data set has no images.

        Args:
            name: in the folder of images, with or without an ending; the file found may have another one.
        """
        if not self.images:
            return ""
        path = self.located(name if self.images == "." else f"{self.images}/{name}")
        return path if ending(path) else path + USUAL_ENDING

    def located(self, path: str) -> str:
        """The file that a path relative to the data root names, or the path as it is where there is none."""
        path = path.replace("\\", "/")
        return self.folder.find(path) or path

    def place(self, file: Path) -> str:
        """A file's path relative to the data root, with slashes."""
        root = self.folder.root
        return file.name if root == file else file.relative_to(root).as_posix()

    def optional(self, role: str) -> Path | None:
        """Path of a file that may be absent, or ``None`` where it is."""
        path = self.files.get(role)
        return path if path is not None and path.is_file() else None
