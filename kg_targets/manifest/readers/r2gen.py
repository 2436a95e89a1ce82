"""Report generation's ``annotation.json`` (R2Gen and its successors): IU X-ray, MIMIC-CXR, an image a record.

``{"train": [{"id", "report", "image_path": [...]}], "val": [...], "test": [...]}``; MIMIC-CXR's has subject_id and
study_id, too. The case is the subject, else the study, else the id.
"""

from collections.abc import Iterator

from kg_targets.errors import ManifestError
from kg_targets.manifest.files import json_content, objects, shortened, text
from kg_targets.manifest.images import without_ending
from kg_targets.manifest.record import ReadRequest, Record, unusable_text


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split.

    Raises:
        ManifestError: the file is not such JSON, or has no such split.
    """
    path, report = request.files["captions"], request.report
    content = json_content(path, ManifestError)
    items = content.get(request.split) if isinstance(content, dict) else None
    if not isinstance(items, list):
        has = shortened(map(str, content)) if isinstance(content, dict) else "no splits at all"
        raise ManifestError(f"{path}: {request.split} is no list of studies; the file has {has}")
    for where, item in objects(items, path, report):
        caption, named = " ".join(text(item, "report").split()), item.get("image_path")
        images = named if isinstance(named, list) else [named] if isinstance(named, str) else []
        why = unusable_text(caption) or ("" if images else "names no image")
        if why:
            report.skip(why, where)
            continue
        case = text(item, "subject_id") or text(item, "study_id") or text(item, "id")
        for name in map(str, images):
            image_id = without_ending(name)
            yield (
                where,
                Record(image_id, request.image_path(name), caption, case or image_id, request.licence),
            )
