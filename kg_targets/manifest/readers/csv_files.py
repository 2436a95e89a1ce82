"""The ``csv`` layout: the demo's, and the template for anyone's own data.

One UTF-8 file per split with a header. Required: ``filepath``, ``caption``. Optional: ``image_id`` (default: the file
name without its suffix), ``cuis`` (separated by ``|``), ``group_id``, ``licence`` and any ``label_<name>``.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath

from kg_targets.manifest.record import ReadRequest, Record, csv_rows


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one CSV file.

    Raises:
        ManifestError: the file is missing or empty, or lacks a required column.
    """
    for where, row in csv_rows(request.files["captions"], ("filepath", "caption"), request.report):
        filepath = row["filepath"]
        image_id = row.get("image_id", PurePosixPath(filepath).stem)
        if not image_id:
            request.report.skip("has no image id", where)
            continue
        labels = {
            name.removeprefix("label_"): value for name, value in row.items() if name.startswith("label_")
        }
        yield (
            where,
            Record(
                image_id=image_id,
                image_path=filepath,
                caption=row["caption"],
                group_id=row.get("group_id") or image_id,
                licence=row.get("licence") or request.licence,
                labels=labels,
                cuis=tuple(cui for cui in row.get("cuis", "").split("|") if cui),
            ),
        )
