"""ROCOv2: ``<split>_captions.csv`` (ID, Caption) and ``<split>_concepts.csv`` (ID, CUIs separated by ``;``)."""

from collections.abc import Iterator

from kg_targets.manifest.files import csv_rows
from kg_targets.manifest.record import ReadRequest, Record


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split.

    Raises:
        ManifestError: a file cannot be read or lacks a column.
    """
    concepts: dict[str, tuple[str, ...]] = {}
    path = request.optional("concepts")
    if path is not None:
        rows = csv_rows(path, ("ID", "CUIs"), request.report)
        concepts = {
            row["ID"]: tuple(cui.strip() for cui in row["CUIs"].split(";") if cui.strip()) for _, row in rows
        }
    for where, row in csv_rows(request.files["captions"], ("ID", "Caption"), request.report):
        image_id = row["ID"].strip()
        if not image_id:
            request.report.skip("has no image id", where)
            continue
        yield (
            where,
            Record(
                image_id=image_id,
                image_path=request.image_path(image_id),
                caption=row["Caption"].strip(),
                group_id=image_id,
                licence=request.licence,
                cuis=concepts.get(image_id, ()),
            ),
        )
