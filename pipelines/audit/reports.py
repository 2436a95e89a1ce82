"""Reports: texts with their ids and labels, from a table of one's own or from a data set's manifest."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kg_targets.errors import DataError, printable
from kg_targets.manifest import Manifest, ReadReport
from kg_targets.manifest.files import csv_header, csv_rows
from kg_targets.manifest.record import unusable_text

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")
TEXT = (("findings", "impression"), ("caption",), ("text",), ("report",))
"""Columns whose texts are joined, the first of which a table has all or some."""
IDS = ("report_id", "image_id", "study_id", "id")


@dataclass(frozen=True)
class Reports:
    """Texts of a data set."""

    title: str
    ids: list[str]
    texts: list[str]
    labels: pd.DataFrame
    """A row for each text; text columns."""
    notes: list[str] = field(default_factory=list)
    """For people: rows that were left out."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns that the texts are of; empty for a data set's captions."""

    def column(self, name: str) -> list[str]:
        """A column of labels.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.labels:
            there = ", ".join(map(str, self.labels)) or "none"
            raise DataError(f"{self.title} has no column {name!r}: there are {there}")
        return [str(value) for value in self.labels[name]]


def read_reports(source: str, text: str, split: str | None, data_root: Path | None) -> Reports:
    """Read texts from a CSV file (any usual separator and encoding) or Parquet, or from the captions of a manifest.

    Args:
        source: a file with one of ``TABLES``' endings, a data set's name or a manifest's path.
        text: columns to join, separated by commas; empty for the usual ones. For a manifest it must be empty. Upper
            and lower case of columns' names make no difference.
        split: of a manifest; None for all that are present.

    Raises:
        DataError: the file cannot be read or has no such column.
        ManifestError: there is no such data set.
    """
    if not source.endswith(TABLES):
        return _of_manifest(source, text, split, data_root)
    path, report = Path(source), ReadReport()
    if not path.is_file():
        raise DataError(f"{path} is not there: give a table of reports, or a data set's name")
    if path.suffix == ".parquet":
        try:
            table = pd.read_parquet(path).fillna("").astype(str)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is no Parquet file ({' '.join(str(error).split())[:120]})") from error
    else:
        header = csv_header(path, None)
        if any(map(unusable_text, header)):
            raise DataError(
                f"{path} is no table of texts: its first line must name the columns, in UTF-8 or UTF-16"
            )
        rows = [row for _, row in csv_rows(path, (), report, separator=None)]
        table = pd.DataFrame(rows, columns=header, dtype=str)
    named = {str(name).lower(): str(name) for name in reversed(list(table))} | {str(n): str(n) for n in table}
    asked = [name.strip() for name in text.split(",") if name.strip()]
    missing = [name for name in asked if name not in named and name.lower() not in named]
    wanted = [named.get(name) or named[name.lower()] for name in asked if name not in missing] or _usual(
        named
    )
    if missing or not wanted:
        lacks = f"has no column {missing[0]!r}" if missing else "has none of the usual columns of text"
        raise DataError(f"{path} {lacks}: name some of {printable(', '.join(map(str, table)))} by --text")
    if not len(table):
        report.note("has a header and no row", path.name)
    texts = table[wanted].agg(" ".join, axis=1).str.strip().tolist() if len(table) else []
    ids = next((table[named[name]].tolist() for name in IDS if name in named), [*map(str, range(len(table)))])
    return Reports(path.name, ids, texts, table.drop(columns=wanted), report.lines(), wanted)


def _usual(named: dict[str, str]) -> list[str]:
    """The usual columns of text that a table has, given its columns by their names in lower case."""
    return next((found for names in TEXT if (found := [named[name] for name in names if name in named])), [])


def _of_manifest(source: str, text: str, split: str | None, data_root: Path | None) -> Reports:
    manifest = Manifest.load(source)
    if text:
        raise DataError(
            f"--text names columns of a table; {manifest.name} is a data set: its captions are read"
        )
    root = data_root or manifest.default_root
    splits = [split] if split else manifest.present_splits(root) or [manifest.fit_split]
    report = ReadReport()
    records = [record for name in splits for record in manifest.records(name, root, report)]
    return Reports(
        f"{manifest.name}/{'+'.join(splits)}",
        [record.image_id for record in records],
        [record.caption for record in records],
        pd.DataFrame([record.labels for record in records]).fillna(""),
        report.lines(),
    )
