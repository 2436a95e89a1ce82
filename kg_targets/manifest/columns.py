"""Tables of one's own: which column (of CSV, Parquet) or key (of JSON) means what, and what of them is not used.

Columns are known by their names, ``filepath``, ``caption``, ``image_id``, ``group_id``, ``licence``, ``cuis`` and
``label_<name>``, some by other usual names, too (``OTHER_NAMES``). A manifest's options name any other column:
``options: {group_id: patient_id, labels: "organ, view", ignore: study_id}``. A column that must be a patient or a case
is never passed over: without it images of one patient are negatives of each other and come into several splits.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.files import shortened
from kg_targets.manifest.images import without_ending
from kg_targets.manifest.record import ReadReport, ReadRequest, Record

FIELDS = ("filepath", "caption", "image_id", "group_id", "licence", "cuis")
OTHER_NAMES = {
    "filepath": (
        "file_name",
        "filename",
        "file_path",
        "image_path",
        "img_path",
        "image_file",
        "path",
        "image",
    ),
    "caption": ("text", "report"),
    "licence": ("license",),
    "cuis": ("cui",),
}
"""Other names by which a column is taken for a field, most wanted first."""
LABELS, IGNORE = "labels", "ignore"
OPTIONS = frozenset((*FIELDS, LABELS, IGNORE))
LABEL_PREFIX = "label_"
NO_PLACE = (-1, -1)
"""Place of a concept that is given without one."""
_CASE = (
    "patient",
    "subject",
    "case",
    "person",
    "study",
    "exam",
    "visit",
    "accession",
    "article",
    "pmc",
    "mrn",
)
_IS_CASE = re.compile(
    rf"(?:{'|'.join(_CASE)})(?:id|ids|no|nr|number|key|uid|name|index)?|u?patid|pid|pmcid|pmid|studyinstanceuid"
)
_IS_LABEL = re.compile(
    "labels?|organs?|modality|modalities|findings?|diagnos[ie]s|class|category|view|viewposition|plane|projection|"
    "region|bodypart|bodypartexamined|anatomy|location|disease|pathology|sex|age"
)
_CUI_KEYS = ("umls_cui", "cui", "CUI", "code")
Rows = Iterator[tuple[str, Mapping[str, Any]]]
"""(place, row)."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they mean."""

    fields: dict[str, str]
    """Of ``FIELDS`` those that are there, to their columns."""
    labels: dict[str, str]
    """Label to its column."""
    ignored: dict[str, str]
    """Columns that are not used, to what they are likely meant for; empty where nothing suggests itself."""

    @classmethod
    def of(cls, names: Sequence[str], options: Mapping[str, str], where: str) -> "Columns":
        """Tell the columns of a table.

        Args:
            names: of the columns.
            options: the manifest's; see the module.
            where: file, for messages.

        Raises:
            ManifestError: an option names no column, or a column that looks like the case would be passed over.
        """
        known = frozenset(names)
        fields = {field: options[field] for field in FIELDS if field in options}
        labels = {name.removeprefix(LABEL_PREFIX): name for name in listed(options.get(LABELS, ""))}
        passed = frozenset(listed(options.get(IGNORE, "")))
        named = [
            *fields.items(),
            *((LABELS, name) for name in labels.values()),
            *((IGNORE, name) for name in passed),
        ]
        for option, name in named:
            if name not in known:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise ManifestError(
                    f"{where}: options: {option} names column {name!r}, which is not there{hint}: it has "
                    f"{printable(shortened(names))}"
                )
        for field in FIELDS:
            own = [name for name in (field, *OTHER_NAMES.get(field, ())) if name in known - passed]
            if field not in fields and own:
                fields[field] = own[0]
        taken = {*fields.values(), *labels.values(), *passed}
        for name in names:
            if name.startswith(LABEL_PREFIX) and name != LABEL_PREFIX and name not in taken:
                labels[name.removeprefix(LABEL_PREFIX)] = name
        taken |= set(labels.values())
        left = [name for name in names if name not in taken]
        if "group_id" not in fields:
            _refuse_unused_case(left, where)
        return cls(
            fields, labels, {name: _intention(name, fields) for name in left} | dict.fromkeys(passed, "")
        )

    def require(self, field: str, where: str, names: Sequence[str]) -> None:
        """Check that a field has a column.

        Raises:
            ManifestError: it has none.
        """
        if field in self.fields:
            return
        close = difflib.get_close_matches(field, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ManifestError(
            f"{where}: column {field!r} is missing{hint}; the header has {printable(shortened(names))}. Rename one, or "
            f"name it by options: {{{field}: its name}} in the manifest"
        )


def listed(text: str) -> list[str]:
    """``"organ, view"`` to its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _refuse_unused_case(left: Iterable[str], where: str) -> None:
    cases = [name for name in left if _IS_CASE.fullmatch(_plain(name))]
    if cases:
        best = min(
            cases, key=lambda name: next((i for i, c in enumerate(_CASE) if c in _plain(name)), len(_CASE))
        )
        raise ManifestError(
            f"{where}: column {best!r} looks like the patient or case of an image, but the one that is read is "
            "group_id, which is not there; images of one patient would be negatives of each other and get into several "
            "splits. "
            f"Rename it, or write options: {{group_id: {best}}} into the manifest, or options: "
            f"{{ignore: {', '.join(cases)}}} if it is none"
        )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _intention(name: str, fields: Mapping[str, str]) -> str:
    if _IS_LABEL.fullmatch(_plain(name)):
        return f"a label? options: {{labels: {name}}}"
    if _IS_CASE.fullmatch(_plain(name)):
        return "another case than group_id?"
    if len(name) > 60:
        return ""
    close = difflib.get_close_matches(
        name.lower(), [field for field in FIELDS if field not in fields], n=1, cutoff=0.75
    )
    return f"did you mean {close[0]}?" if close else ""


def table_records(
    request: ReadRequest, names: Sequence[str], where: str, rows: Callable[[ReadReport], Rows]
) -> Iterator[tuple[str, Record]]:
    """Stream a table's records; its columns and those not used are noted in the request's report.

    An image id that no column gives is the file's name without its ending, or where two files have the same name (as
    ``p1/view1.jpg`` and ``p2/view1.jpg``) the path without the ending, for every row.

    Args:
        request: its options name columns.
        names: the columns.
        where: file, for messages.
        rows: starts to read the rows anew, counting problems in a report.

    Raises:
        ManifestError: a needed column is missing, or one that looks like the case would be passed over.
    """
    columns = Columns.of(names, request.options, where)
    columns.require("caption", where, names)
    if not (request.images and "image_id" in columns.fields):
        columns.require("filepath", where, names)
    report = request.report
    report.used |= columns.fields | {f"label {name}": column for name, column in columns.labels.items()}
    report.ignored |= columns.ignored
    shape = _Shape(
        columns, request, with_folders="image_id" not in columns.fields and _names_repeat(columns, rows)
    )
    if shape.with_folders:
        report.note("two files have one name: image ids are paths without their endings", where)
    for place, row in rows(report):
        record = shape.record(place, row)
        if record is not None:
            yield place, record


def _names_repeat(columns: Columns, rows: Callable[[ReadReport], Rows]) -> bool:
    """Whether files in different folders have one name; equal paths are another matter."""
    column, of_name = columns.fields["filepath"], dict[str, str]()
    for _, row in rows(ReadReport()):
        path = plain_text(row.get(column)).replace("\\", "/")
        if of_name.setdefault(PurePosixPath(path).stem, path) != path:
            return True
    return False


@dataclass(frozen=True)
class _Shape:
    """How one row becomes a record."""

    columns: Columns
    request: ReadRequest
    with_folders: bool
    """Image ids are paths."""

    def record(self, where: str, row: Mapping[str, Any]) -> Record | None:
        """The record of a row; ``None``, counted, where it has no image id."""
        column, report = self.columns.fields, self.request.report

        def given(field: str) -> str:
            return plain_text(row.get(column[field])) if field in column else ""

        filepath = given("filepath").replace("\\", "/")
        default = without_ending(filepath) if self.with_folders else PurePosixPath(filepath).stem
        image_id = given("image_id") if "image_id" in column else default
        if not image_id:
            report.skip("has no image id", where)
            return None
        group = given("group_id")
        if "group_id" in column and not group:
            report.note("group_id is empty, the image counts as a case of its own", where)
        cuis, places = concepts_of(row.get(column["cuis"])) if "cuis" in column else ((), ())
        if not filepath:
            image_path = self.request.image_path(image_id)
        elif self.request.images:
            image_path = self.request.image_path(filepath)
        else:
            image_path = self.request.located(filepath)
        return Record(
            image_id=image_id,
            image_path=image_path,
            caption=given("caption"),
            group_id=group or image_id,
            licence=given("licence") or self.request.licence,
            labels={name: plain_text(row.get(of), "|") for name, of in self.columns.labels.items()},
            cuis=cuis,
            places=places,
        )


def plain_text(value: Any, between: str = " ") -> str:
    """A value as text: nothing for a missing one, the parts of a list one after the other."""
    if value is None or value != value:  # not a number: pandas writes missing values so
        return ""
    if isinstance(value, (list, tuple)):
        return between.join(filter(None, (plain_text(part, between) for part in value)))
    return str(value)


def concepts_of(value: Any) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """CUIs, and their places in the caption, of ``"C1|C2"``, a list of CUIs, or objects with CUI and offsets.

    Returns:
        CUIs, and a place for each where one at least has a place, else no places.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return tuple(filter(None, re.split(r"[|;,\s]+", plain_text(value)))), ()
    cuis, places = [], []
    for part in value:
        if isinstance(part, Mapping):
            cui = next((plain_text(part[key]) for key in _CUI_KEYS if key in part), "")
            start, end = part.get("start_char", part.get("start")), part.get("end_char", part.get("end"))
            located = isinstance(start, int) and isinstance(end, int) and 0 <= start < end
        else:
            cui, located = plain_text(part), False
        if cui:
            cuis.append(cui)
            places.append((start, end) if located else NO_PLACE)
    return tuple(cuis), tuple(places) if any(place != NO_PLACE for place in places) else ()
