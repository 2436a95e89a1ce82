"""The ``csv`` layout: the demo's, and the template for anyone's own data.

One file per split with a header; commas, semicolons, tabs or ``|`` part the columns; UTF-8 or UTF-16, plain or gzip.
Required: ``filepath``, ``caption``. Optional: ``image_id``, ``cuis`` (separated by ``|``), ``group_id``, ``licence``,
any ``label_<name>``; columns of other names are named by the manifest's options (kg_targets/manifest/columns.py). The
option ``separator`` is ``,``, ``;``, ``|`` or ``tab``; without it the header tells.
"""

from collections.abc import Iterator
from pathlib import Path

from kg_targets.errors import ManifestError
from kg_targets.manifest.columns import OPTIONS as COLUMN_OPTIONS
from kg_targets.manifest.columns import Rows, table_records
from kg_targets.manifest.files import SEPARATORS, csv_header, csv_rows
from kg_targets.manifest.record import ReadReport, ReadRequest, Record

SEPARATOR = "separator"
OPTIONS = COLUMN_OPTIONS | {SEPARATOR}


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream the CSV files of a split.

    Raises:
        ManifestError: a file is missing or empty, or lacks a required column.
    """
    separator = _separator(request.options.get(SEPARATOR))
    for path in request.all_files("captions"):

        def rows(report: ReadReport, path: Path = path) -> Rows:
            return csv_rows(path, (), report, separator)

        yield from table_records(request, csv_header(path, separator), str(path), rows)


def _separator(option: str | None) -> str | None:
    if option is None:
        return None
    named = (
        {word: sign for sign, word in SEPARATORS.items()}
        | {sign: sign for sign in SEPARATORS}
        | {"\\t": "\t"}
    )
    if option not in named:
        raise ManifestError(f"options: separator {option!r} is not one of {' '.join(SEPARATORS.values())}")
    return named[option]
