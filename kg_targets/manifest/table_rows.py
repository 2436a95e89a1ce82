"""Rows of tables of one's own as records: ids, paths, cases, labels and concepts by the columns that give them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from kg_targets.manifest.columns import CASE_PATTERN, Columns
from kg_targets.manifest.given_concepts import concepts_of
from kg_targets.manifest.images import without_ending
from kg_targets.manifest.parquet import IN_FILE
from kg_targets.manifest.record import ReadReport, ReadRequest, Record
from kg_targets.manifest.values import holds_object, id_text, is_missing, plain_text

Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""(place, row)."""


class Table(NamedTuple):
    """A table as it is read."""

    where: str
    """File, for messages."""
    names: Sequence[str]
    """Columns."""
    rows: Callable[[ReadReport], Rows]
    """Starts to read the rows anew, counting problems in a report."""
    images_inside: bool = False
    """The images are in the file, too, so that no column must name them."""


def table_records(request: ReadRequest, tables: Sequence[Table]) -> Iterator[tuple[str, Record]]:
    """Stream the records of a split's tables; columns and those not used are noted in the request's report.

    An image id that no column gives is the file's name without its ending, or where two files have the same name (as
    ``p1/view1.jpg`` and ``p2/view1.jpg``) the path without the ending, for every row; where images are inside and
    the tables repeat each other's paths, it is the table's path and the row in it.

    Raises:
        ManifestError: a needed column is missing, or one that looks like the case would be passed over.
    """
    report, shapes = request.report, []
    for table in tables:
        columns = checked_columns(request, table.names, table.where, table.images_inside)
        shapes.append(Shape(columns, request))
    with_folders, by_place = _repeats(tables, shapes)
    if by_place:
        report.note(
            "files have images with one path inside: image ids and paths are file/row", tables[0].where
        )
    elif with_folders:
        report.note("two files have one name: image ids are paths without their endings", tables[0].where)
    for table, shape in zip(tables, shapes, strict=True):
        for place, row in table.rows(report):
            record = shape.record(place, row, with_folders, by_place)
            if record is not None:
                yield place, record


def checked_columns(request: ReadRequest, names: Sequence[str], where: str, images_inside: bool) -> Columns:
    """The columns of a table, noted in the request's report.

    Args:
        request: of the split.
        names: of the table's columns.
        where: file, for messages.
        images_inside: as in ``Table``.

    Raises:
        ManifestError: as for ``table_records``.
    """
    columns, report = Columns.of(names, request.options, where), request.report
    columns.require("caption", where, names)
    if not images_inside and not (request.images and "image_id" in columns.fields):
        columns.require("filepath", where, names)
    report.used |= columns.fields | {f"label {name}": column for name, column in columns.labels.items()}
    report.ignored |= columns.ignored
    return columns


def _repeats(tables: Sequence[Table], shapes: Sequence["Shape"]) -> tuple[bool, bool]:
    """Whether files in different folders have one name, and whether images inside tables need their places as paths.

    They do where paths repeat from table to table, as where each shard counts anew. A path that is in one table twice
    is another matter: an image with several captions.
    """
    of_name, of_path = dict[int, int](), dict[int, int]()
    names = between = within = False
    for number, (table, shape) in enumerate(zip(tables, shapes, strict=True)):
        named = "image_id" in shape.columns.fields
        if named and not table.images_inside:
            continue
        for _, row in table.rows(ReadReport()):
            text = shape.path(row)
            path = _digest(text)
            if not named:
                name = _digest(without_ending(PurePosixPath(text).name))
                names = names or of_name.setdefault(name, path) != path
            if table.images_inside:
                between = between or of_path.get(path, number) != number
                within = within or of_path.get(path) == number
                of_path[path] = number
    return names, between and not within


def _digest(text: str) -> int:
    """64 bits of a text, in every process the same: of tens of millions the texts themselves would fill the memory."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Shape:
    """How one row becomes a record."""

    columns: Columns
    request: ReadRequest

    def path(self, row: Mapping[str, Any]) -> str:
        """The path that a row gives its image, with slashes; empty where it gives none."""
        given = row.get(self.columns.fields.get("filepath", ""))
        given = given.get("path") if isinstance(given, Mapping) else given
        return plain_text(given or row.get(IN_FILE)).strip().replace("\\", "/")

    def record(self, where: str, row: Mapping[str, Any], with_folders: bool, by_place: bool) -> Record | None:
        """The record of a row; ``None``, counted, where it has no image id.

        Args:
            where: its place.
            row: its values.
            with_folders: image ids that no column gives are paths.
            by_place: and images inside have their places as paths.
        """
        column, report = self.columns.fields, self.request.report

        def given(field: str) -> Any:
            return row.get(column[field]) if field in column else None

        path = self.path(row)
        filepath = str(row.get(IN_FILE) or path) if by_place else path
        image_id, fraction = id_text(given("image_id"))
        if "image_id" not in column:
            image_id = without_ending(filepath if with_folders or by_place else PurePosixPath(filepath).name)
        if why := self._unusable(row, image_id):
            report.skip(why, where)
            return None
        if fraction:
            report.note("image_id is a number with .0, which is left out", where)
        caption = plain_text(given("caption"))
        cuis, places = concepts_of(given("cuis"), caption)
        from_root = filepath == row.get(IN_FILE) or self.request.folder.find(filepath) is not None
        if not filepath:
            image_path = self.request.image_path(image_id)
        elif self.request.images and not from_root:
            image_path = self.request.image_path(filepath)
        else:
            image_path = self.request.located(filepath)
        return Record(
            image_id=image_id,
            image_path=image_path,
            caption=caption,
            group_id=self._case(row, path or image_id, where) or image_id,
            licence=plain_text(given("licence")) or self.request.licence,
            labels={name: plain_text(row.get(of), "|") for name, of in self.columns.labels.items()},
            cuis=cuis,
            places=places,
        )

    def _unusable(self, row: Mapping[str, Any], image_id: str) -> str:
        """Why a row cannot be a record; empty if it can."""
        column = self.columns.fields
        image = row.get(column.get("filepath", ""))
        if isinstance(image, (list, tuple)) and len(image) > 1:
            return "names several images"
        if holds_object(row.get(column["caption"])):
            return "caption is an object, no text: name the key in it, options: {caption: text.en}"
        return "" if image_id else "has no image id"

    def _case(self, row: Mapping[str, Any], path: str, where: str) -> str:
        """The case that a row gives its image; empty where it gives none."""
        column, report, pattern = (
            self.columns.fields,
            self.request.report,
            self.request.options.get(CASE_PATTERN),
        )
        group, fraction = id_text(row.get(column.get("group_id", "")))
        if fraction:
            report.note("group_id is a number with .0, which is left out", where)
        if is_missing(group):
            group = ""
        if "group_id" in column and not group:
            report.note("group_id is empty, the image counts as a case of its own", where)
        if pattern is None:
            return group
        match = re.search(pattern, group or path)
        if not match:
            report.note(f"{CASE_PATTERN} finds nothing, the image counts as a case of its own", where)
        return match[0] if match else ""
