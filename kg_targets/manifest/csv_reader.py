"""The ``csv`` layout: the demo's, and the template for anyone's own data.

One UTF-8 file per split with a header. Required: ``filepath``, ``caption``. Optional: ``image_id`` (default: the file
name without its suffix), ``cuis`` (separated by ``|``), ``group_id``, ``licence`` and any ``label_<name>``.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kg_targets.errors import ManifestError
from kg_targets.manifest.record import ReadReport, Record, safe_relative_path, unusable_text

REQUIRED = ("filepath", "caption")


def read_csv(path: Path, licence: str, report: ReadReport) -> Iterator[tuple[str, Record]]:
    """Stream (place, record) from one CSV file; unusable rows are counted in ``report`` and skipped.

    Raises:
        ManifestError: the file is missing or empty, lacks a required column, or names an image outside the data root.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error.strerror}): check the data root") from error
    with stream:
        rows = csv.reader(stream)
        header = next(rows, None)
        if header is None:
            raise ManifestError(f"{path} is empty: its first line must name the columns, at least filepath,caption")
        missing = [name for name in REQUIRED if name not in header]
        if missing:
            raise ManifestError(f"{path}: column {missing[0]!r} is missing; the header has {','.join(header)}")
        for row in rows:
            where = f"{path.name} line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                report.skip(f"has not {len(header)} columns", where)
                continue
            record = _record(dict(zip(header, row, strict=True)), licence, where, report)
            if record is not None:
                yield where, record


def _record(row: dict[str, str], licence: str, where: str, report: ReadReport) -> Record | None:
    for name, value in row.items():
        reason = unusable_text(value)
        if reason is not None:
            report.skip(f"{name} {reason}", where)
            return None
    filepath = safe_relative_path(row["filepath"], where)
    image_id = row.get("image_id", PurePosixPath(filepath).stem)
    if not image_id:
        report.skip("has no image id", where)
        return None
    return Record(
        image_id=image_id,
        image_path=filepath,
        caption=row["caption"],
        group_id=row.get("group_id") or image_id,
        licence=row.get("licence") or licence,
        labels={name.removeprefix("label_"): value for name, value in row.items() if name.startswith("label_")},
        cuis=tuple(cui for cui in row.get("cuis", "").split("|") if cui),
    )
