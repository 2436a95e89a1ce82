"""Which column (of CSV, Parquet) or key (of JSON) of a table of one's own means what, and which are not used.

Columns are known by their names, ``filepath``, ``caption``, ``image_id``, ``group_id``, ``licence``, ``cuis`` and
``label_<name>``, some by other usual names, too (``OTHER_NAMES``). A manifest's options name any other column:
``options: {group_id: patient_id, labels: "organ, view", ignore: study_id}``. A column that must be a patient or a case
is never passed over: without it images of one patient are negatives of each other and come into several splits.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.column_names import intention, is_case, widest_case
from kg_targets.manifest.files import shortened
from kg_targets.manifest.parquet import PATH

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
            ManifestError: an option names no column, two columns give one label, or a column that looks like the case
                would be passed over.
        """
        fields = {field: options[field] for field in FIELDS if field in options}
        wanted = listed(options.get(LABELS, ""))
        unread = listed(options.get(IGNORE, ""))
        _check_named([*fields.items(), *_paired(LABELS, wanted), *_paired(IGNORE, unread)], names, where)
        passed = {name for name in names if name in unread or name.partition(".")[0] in unread}
        for field in FIELDS:
            own = (
                name for name in (field, *OTHER_NAMES.get(field, ())) if name in names and name not in passed
            )
            if field not in fields and (first := next(own, None)):
                fields[field] = first
        taken = {*fields.values(), *passed}
        prefixed = [
            name
            for name in names
            if name.startswith(LABEL_PREFIX) and name != LABEL_PREFIX and name not in taken
        ]
        labels = _labels([*wanted, *prefixed], where)
        taken |= set(labels.values())
        left = [name for name in names if name not in taken]
        if "group_id" not in fields and CASE_PATTERN not in options:
            _refuse_unused_case(left, where)
        free = [field for field in FIELDS if field not in fields]
        return cls(fields, labels, {name: intention(name, free) for name in left} | dict.fromkeys(passed, ""))

    def require(self, field: str, where: str, names: Sequence[str]) -> None:
        """Check that a field has a column.

        Raises:
            ManifestError: it has none.
        """
        if field in self.fields:
            return
        raise ManifestError(
            f"{where}: column {field!r} is missing{_did_you_mean(field, names)}; the header has "
            f"{printable(shortened(names))}. Rename one, or name it by options: {{{field}: its name}} in the manifest"
        )


def listed(text: str) -> list[str]:
    """``"organ, view"`` to its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _paired(option: str, names: Iterable[str]) -> list[tuple[str, str]]:
    return [(option, name) for name in names]


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_named(named: Iterable[tuple[str, str]], names: Sequence[str], where: str) -> None:
    """Check that each (option, column) names a column that is there, and none is ignored that is used."""
    known, by_name = frozenset(names), dict[str, str]()
    for option, name in named:
        if name not in known:
            raise ManifestError(
                f"{where}: options: {option} names column {name!r}, which is not there{_did_you_mean(name, names)}: "
                f"it has {printable(shortened(names))}"
            )
        if option == IGNORE and name in by_name:
            raise ManifestError(
                f"{where}: options: {by_name[name]} and {IGNORE} both name {name!r}: drop one of them"
            )
        by_name[name] = option


def _labels(columns: Iterable[str], where: str) -> dict[str, str]:
    """Label to its column."""
    labels = dict[str, str]()
    for column in columns:
        label = column.removeprefix(LABEL_PREFIX)
        if labels.setdefault(label, column) != column:
            raise ManifestError(
                f"{where}: columns {labels[label]!r} and {column!r} are both label {label!r}: rename one, or name it "
                f"in options: {{{IGNORE}: …}}"
            )
    return labels


def _refuse_unused_case(left: Iterable[str], where: str) -> None:
    cases = [name for name in left if is_case(name)]
    if cases:
        best = widest_case(cases)
        raise ManifestError(
            f"{where}: column {best!r} looks like the patient or case of an image, but the one that is read is "
            "group_id, which is not there; images of one patient would be negatives of each other and get into several "
            "splits. "
            f"Rename it, or write options: {{group_id: {best}}} into the manifest, or options: "
            f"{{ignore: {', '.join(cases)}}} if it is none"
        )
