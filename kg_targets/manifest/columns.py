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
from typing import Any, NamedTuple

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.files import shortened
from kg_targets.manifest.images import without_ending
from kg_targets.manifest.parquet import IN_FILE, PATH
from kg_targets.manifest.record import ReadReport, ReadRequest, Record

FIELDS = ("filepath", "caption", "image_id", "group_id", "licence", "cuis")
OTHER_NAMES = {
    "filepath": (
        "file_name", "filename", "file_path", "image_path", "img_path", "image_file", "path", "image",
        f"image{PATH}",
    ),
    "caption": ("text", "report"),
    "licence": ("license",),
    "cuis": ("cui", "umls_meta_info"),
}  # fmt: skip
"""Other names by which a column is taken for a field, most wanted first."""
LABELS, IGNORE, CASE_PATTERN = "labels", "ignore", "case_pattern"
"""Options: columns that are labels; columns that are passed over on purpose; regular expression for the case in
``group_id``, or in the path of the image where there is none."""
OPTIONS = frozenset((*FIELDS, LABELS, IGNORE, CASE_PATTERN))
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
    "encounter",
    "admission",
    "hadm",
    "accession",
    "article",
    "pmc",
    "mrn",
)
_ID = "(?:id|ids|no|nr|number|key|uid|name|index|identifier|code|hash)?"
_CASE_WORD = re.compile(rf"(?:{'|'.join(_CASE)})s?{_ID}|studies|u?patid|pid|pmcid|pmid|studyinstanceuid")
_GROUP = re.compile(f"groups?{_ID}")
_OF_CASE = re.compile(
    "age|sex|gender|race|ethnicity|weight|height|size|position|orientation|date|time|year|type|kind|title|"
    "description|desc|text|report|history|comments?|journal|url|link|licen[cs]e|count|status"
)
"""Words that make a column something about a patient or case."""
_IS_LABEL = re.compile(
    "labels?|organs?|modality|modalities|findings?|diagnos[ie]s|class|category|view|viewposition|plane|projection|"
    "region|bodypart|bodypartexamined|anatomy|location|disease|pathology|sex|age"
)
_SERIES = re.compile("series(?:instance)?(?:id|uid|no|number)?")
_SPLIT = re.compile("splits?|folds?|subsets?|partitions?")
_MISSING = ("", "nan", "none", "na", "n/a", "<na>", "null", "nat")
"""How programs write, in any case, that a case is not given."""
_CUI_KEYS = ("umls_cui", "cui", "CUI", "code")
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
        if "group_id" not in fields and CASE_PATTERN not in options:
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
    cases = [name for name in left if _is_case(name)]
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


def _is_case(name: str) -> bool:
    """Whether a column must be a patient or a case: ``patientid``, ``anon_patient``, ``PatientIdentifier``."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    if any(_OF_CASE.fullmatch(word) for word in words):
        return False
    return bool(_GROUP.fullmatch(_plain(name))) or any(
        _CASE_WORD.fullmatch(word) for word in (*words, _plain(name))
    )


def _intention(name: str, fields: Mapping[str, str]) -> str:
    if _IS_LABEL.fullmatch(_plain(name)):
        return f"a label? options: {{labels: {name}}}"
    if _is_case(name):
        return "another case than group_id?"
    if _SERIES.fullmatch(_plain(name)):
        return "a part of a case? the case is the patient or study"
    if _SPLIT.fullmatch(_plain(name)):
        return "are all splits in one file? It is read as one: write a file for each"
    if len(name) > 60:
        return ""
    close = difflib.get_close_matches(
        name.lower(), [field for field in FIELDS if field not in fields], n=1, cutoff=0.75
    )
    return f"did you mean {close[0]}?" if close else ""


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
        columns = Columns.of(table.names, request.options, table.where)
        columns.require("caption", table.where, table.names)
        if not table.images_inside and not (request.images and "image_id" in columns.fields):
            columns.require("filepath", table.where, table.names)
        report.used |= columns.fields | {f"label {name}": column for name, column in columns.labels.items()}
        report.ignored |= columns.ignored
        shapes.append(_Shape(columns, request))
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


def _repeats(tables: Sequence[Table], shapes: Sequence["_Shape"]) -> tuple[bool, bool]:
    """Whether files in different folders have one name, and whether images inside tables need their places as paths.

    They do where paths repeat from table to table, as where each shard counts anew. A path that is in one table twice
    is another matter: an image with several captions.
    """
    of_name, of_path = dict[str, str](), dict[str, int]()
    names = between = within = False
    for number, (table, shape) in enumerate(zip(tables, shapes, strict=True)):
        named = "image_id" in shape.columns.fields
        if named and not table.images_inside:
            continue
        for _, row in table.rows(ReadReport()):
            path = shape.path(row)
            names = names or (not named and of_name.setdefault(PurePosixPath(path).stem, path) != path)
            if table.images_inside:
                between = between or of_path.get(path, number) != number
                within = within or of_path.get(path) == number
                of_path[path] = number
    return names, between and not within


@dataclass(frozen=True)
class _Shape:
    """How one row becomes a record."""

    columns: Columns
    request: ReadRequest

    def path(self, row: Mapping[str, Any]) -> str:
        """The path that a row gives its image, with slashes; empty where it gives none."""
        given = row.get(self.columns.fields.get("filepath", ""))
        given = given.get("path") if isinstance(given, Mapping) else given
        return plain_text(given or row.get(IN_FILE)).replace("\\", "/")

    def record(self, where: str, row: Mapping[str, Any], with_folders: bool, by_place: bool) -> Record | None:
        """The record of a row; ``None``, counted, where it has no image id.

        Args:
            where: its place.
            row: its values.
            with_folders: image ids that no column gives are paths.
            by_place: and images inside have their places as paths.
        """
        column, report, options = self.columns.fields, self.request.report, self.request.options

        def given(field: str) -> str:
            return plain_text(row.get(column[field])) if field in column else ""

        path = self.path(row)
        filepath = str(row.get(IN_FILE) or path) if by_place else path
        default = without_ending(filepath) if with_folders or by_place else PurePosixPath(filepath).stem
        image_id = given("image_id") if "image_id" in column else default
        if not image_id:
            report.skip("has no image id", where)
            return None
        group = given("group_id")
        if group.strip().lower() in _MISSING:
            group = ""
        if "group_id" in column and not group:
            report.note("group_id is empty, the image counts as a case of its own", where)
        if CASE_PATTERN in options:
            match = re.search(options[CASE_PATTERN], group or path or image_id)
            group = match[0] if match else ""
            if not match:
                report.note(f"{CASE_PATTERN} finds nothing, the image counts as a case of its own", where)
        caption = given("caption")
        cuis, places = concepts_of(row.get(column["cuis"]), caption) if "cuis" in column else ((), ())
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


def concepts_of(value: Any, caption: str = "") -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """CUIs, and their places in the caption, of ``"C1|C2@3-9"``, a list of CUIs, or objects with CUI and offsets.

    MedConcept-23M counts offsets in a text with blanks around punctuation: where its ``tokens`` are not at the offsets,
    the nearest place where they are is taken.

    Returns:
        CUIs, and a place for each where one at least has a place, else no places.
    """
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, (list, tuple)):
        parts = [part.partition("@") for part in re.split(r"[|;,\s]+", plain_text(value)) if part]
        spans = [re.fullmatch(r"(\d+)-(\d+)", place) for _, _, place in parts]
        value = [
            {"cui": cui, **({"start": int(span[1]), "end": int(span[2])} if span else {})}
            for (cui, _, _), span in zip(parts, spans, strict=True)
        ]
    cuis, places = [], []
    for part in value:
        fields = part if isinstance(part, Mapping) else {"cui": part}
        cui = next((plain_text(fields[key]) for key in _CUI_KEYS if key in fields), "")
        if cui:
            cuis.append(cui)
            places.append(_place(fields, caption))
    return tuple(cuis), tuple(places) if any(place != NO_PLACE for place in places) else ()


def _place(fields: Mapping[str, Any], caption: str) -> tuple[int, int]:
    start, end = fields.get("start_char", fields.get("start")), fields.get("end_char", fields.get("end"))
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end):
        return NO_PLACE
    tokens = fields.get("tokens")
    if not isinstance(tokens, list) or not tokens:
        return (start, end) if end <= len(caption) else NO_PLACE
    pattern = r"\s*".join(re.escape(str(token)) for token in tokens)
    found = [match.span() for match in re.finditer(pattern, caption, re.IGNORECASE)]
    return min(found, key=lambda span: (abs(span[0] - start), span), default=NO_PLACE)


def concepts_text(cuis: Sequence[str], places: Sequence[tuple[int, int]]) -> str:
    """The text of which ``concepts_of`` makes these concepts."""
    spans = places or [NO_PLACE] * len(cuis)
    return "|".join(
        cui if place == NO_PLACE else f"{cui}@{place[0]}-{place[1]}"
        for cui, place in zip(cuis, spans, strict=True)
    )
