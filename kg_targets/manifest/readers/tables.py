"""Tables of images with captions: CSV, JSON lines, JSON, Parquet and tar shards, told by the file's name.

Each row is an image. Columns, keys and ids are told as kg_targets/manifest/columns.py says; that is all there is to the
layouts ``csv`` (the demo's, and the template for anyone's own data) and ``table``.

CSV           a header; commas, semicolons, tabs or ``|`` part the columns (option ``separator``, or the header tells)
JSON lines    an object a line, such as metadata.jsonl of an image folder, or MedConcept-23M's with CUIs and offsets
JSON          a list of objects
Parquet       as Hugging Face writes it; the images may be inside, as bytes
tar           webdataset: members ``key.jpg``, ``key.txt`` (caption), ``key.json`` (further keys)

CSV and JSON are UTF-8 or UTF-16, plain or gzip.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kg_targets.errors import ManifestError
from kg_targets.manifest.columns import OPTIONS as COLUMN_OPTIONS
from kg_targets.manifest.columns import Rows, Table, table_records
from kg_targets.manifest.files import SEPARATORS, csv_header, csv_rows, json_lines, json_objects
from kg_targets.manifest.parquet import parquet_header, parquet_rows
from kg_targets.manifest.record import ReadReport, ReadRequest, Record
from kg_targets.manifest.tars import tar_rows

SEPARATOR = "separator"
OPTIONS = COLUMN_OPTIONS | {SEPARATOR}


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream the tables of a split.

    Raises:
        ManifestError: a file is missing, empty or damaged, or lacks a required column.
    """
    return table_records(request, [_table(path, request) for path in request.all_files("captions")])


def _table(path: Path, request: ReadRequest) -> Table:
    place = request.place(path)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    match suffixes[-1:]:
        case [".jsonl" | ".ndjson"]:
            return _of_keys(path, partial(json_lines, path))
        case [".json"]:
            return _of_keys(path, lambda report: json_objects(path, report, ManifestError))
        case [".tar"]:
            return _of_keys(path, lambda report: tar_rows(path, place, report))
        case [".parquet"]:
            names, image = parquet_header(path)
            return Table(
                str(path), names, partial(parquet_rows, path, names, place if image else ""), bool(image)
            )
    separator = _separator(request.options.get(SEPARATOR))
    names = csv_header(path, separator)
    if len(names) == 1 < len(csv_header(path, None)):
        raise ManifestError(
            f"{path}: its header {names[0]!r} is one column with this option separator: drop the option"
        )
    rows = partial(csv_rows, path, (), separator=separator)
    return Table(str(path), names, lambda report: rows(report=report))


def _of_keys(path: Path, rows: Callable[[ReadReport], Rows]) -> Table:
    """A table whose columns are the keys of its rows: of all, since a patient may first be given in the last one."""
    keys = dict.fromkeys(key for _, row in rows(ReadReport()) for key in row)
    return Table(str(path), list(keys), rows)


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
