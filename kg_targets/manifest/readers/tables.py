"""Tables of images with captions: CSV, JSON lines, JSON, Parquet and tar shards, told by the file's name.

Each row is an image. Columns, keys and ids are told as kg_targets/manifest/columns.py and table_rows.py say; that is
all there is to the layouts ``csv`` (the demo's, and the template for anyone's own data) and ``table``.

CSV           a header; commas, semicolons, tabs or ``|`` part the columns (option ``separator``, or the header tells)
JSON lines    an object a line, such as metadata.jsonl of an image folder, or MedConcept-23M's with CUIs and offsets
JSON          a list of objects
Parquet       as Hugging Face writes it; the images may be inside, as bytes
tar           webdataset: members ``key.jpg``, ``key.txt`` (caption), ``key.json`` (further keys)

CSV and JSON are UTF-8 or UTF-16, plain or gzip.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path

from kg_targets.errors import ManifestError
from kg_targets.manifest.column_names import is_case
from kg_targets.manifest.columns import OPTIONS as COLUMN_OPTIONS
from kg_targets.manifest.columns import listed
from kg_targets.manifest.files import SEPARATORS, csv_header, csv_rows, json_lines, json_objects
from kg_targets.manifest.parquet import parquet_header, parquet_rows
from kg_targets.manifest.record import ReadReport, ReadRequest, Record
from kg_targets.manifest.table_rows import Rows, Table, table_records
from kg_targets.manifest.tars import tar_rows
from kg_targets.manifest.values import with_inner

SEPARATOR = "separator"
OPTIONS = COLUMN_OPTIONS | {SEPARATOR}
CSV, JSON_LINES = "csv", "jsonl"


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream the tables of a split.

    Raises:
        ManifestError: a file is missing, empty or damaged, or lacks a required column.
    """
    return table_records(request, [_table(path, request) for path in request.all_files("captions")])


def _table(path: Path, request: ReadRequest) -> Table:
    place = request.place(path)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    keyed = partial(_of_keys, path, request)
    match suffixes[-1:]:
        case [".jsonl" | ".ndjson"]:
            return keyed(partial(json_lines, path), "each line must be an object; a list of them is .json")
        case [".json"]:
            rows = partial(json_objects, path, error=ManifestError)
            return keyed(lambda report: rows(report=report), "it must be a list of objects")
        case [".tar"]:
            return keyed(partial(tar_rows, path, place), "a sample is key.jpg, key.txt and key.json")
        case [".parquet"]:
            names, image = parquet_header(path)
            return Table(
                str(path), names, partial(parquet_rows, path, names, place if image else ""), bool(image)
            )
    separator = separator_of(request)
    names = csv_header(path, separator)
    if len(names) == 1 < len(csv_header(path)):
        raise ManifestError(
            f"{path}: its header {names[0]!r} is one column with this option separator: drop the option"
        )
    return Table(str(path), names, lambda report: csv_rows(path, (), report, separator))


def _of_keys(path: Path, request: ReadRequest, rows: Callable[[ReadReport], Rows], expected: str) -> Table:
    """A table whose columns are the keys of its rows: of all, since a patient may first be given in the last one.

    Of the keys of an object in a row those are columns that the options name, or that must be a patient.

    Args:
        path: the file.
        request: has the options.
        rows: starts to read the file.
        expected: what such a file must hold, for the message.

    Raises:
        ManifestError: no row of it can be used.
    """
    wanted = key_filter(request)

    def all_rows(report: ReadReport) -> Rows:
        return ((place, with_inner(row, wanted)) for place, row in rows(report))

    report = ReadReport()
    keys = dict.fromkeys(key for _, row in all_rows(report) for key in row)
    if not keys:
        why = "; ".join(report.lines()) or "it is empty"
        raise ManifestError(f"{path}: no row can be used ({why}): {expected}")
    return Table(str(path), list(keys), all_rows)


def key_filter(request: ReadRequest) -> Callable[[str], bool]:
    """Tells the keys of an object in a row that are columns."""
    named = {name for option in request.options.values() for name in listed(option)}
    return lru_cache(maxsize=4096)(lambda name: name in named or is_case(name))


def text_kind(path: Path) -> str | None:
    """``JSON_LINES`` or ``CSV``, by a file's name; None for other kinds of table."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    if suffixes[-1:] in ([".jsonl"], [".ndjson"]):
        return JSON_LINES
    return None if suffixes[-1:] in ([".json"], [".tar"], [".parquet"]) else CSV


def separator_of(request: ReadRequest) -> str | None:
    """What parts a table's columns by the manifest's options.

    Raises:
        ManifestError: the option is none of ``SEPARATORS``.
    """
    option = request.options.get(SEPARATOR)
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
