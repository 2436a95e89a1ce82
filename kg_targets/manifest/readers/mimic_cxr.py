"""MIMIC-CXR-JPG with the reports of MIMIC-CXR: an image a record, the subject is the case.

``mimic-cxr-2.0.0-split.csv`` (dicom_id, study_id, subject_id, split) lists the images, which are
``files/p10/p10000032/s50414267/<dicom_id>.jpg``; the study's report is ``files/p10/p10000032/s50414267.txt``. Where
they are there, ``-metadata.csv`` gives the label ``view``, and ``-chexpert.csv`` the label ``finding``: what CheXpert's
labeller found.
"""

from collections.abc import Iterator
from functools import lru_cache

from kg_targets.manifest.files import csv_rows, open_text
from kg_targets.manifest.record import ReadRequest, Record, safe_relative_path, unusable_text
from kg_targets.manifest.reports import TEXT, caption_of, sections

REPORTS = "reports"
"""Option: folder of the reports below the data root."""
USUAL = ("files", "mimic-cxr-reports/files", "mimic-cxr-reports")
"""Where the reports are without this option: beside the images, or where their archive is unpacked by itself."""
OPTIONS = frozenset((TEXT, REPORTS))


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split.

    Raises:
        ManifestError: a file cannot be read or lacks a column, or the option ``text`` has another value.
    """
    report, views, findings = request.report, _views(request), _findings(request)
    named = [request.options[REPORTS]] if REPORTS in request.options else USUAL
    reports = [request.folder.root / safe_relative_path(folder, f"option {REPORTS}") for folder in named]

    @lru_cache(maxsize=16)  # the images of a study follow each other
    def study_caption(folder: str, study: str) -> tuple[str, str]:
        """Caption, or what is wrong with the report."""
        path = next((path for place in reports if (path := place / folder / f"s{study}.txt").is_file()), None)
        if path is None:
            return (
                "",
                f"has no report in {' or '.join(named)} (options: {{{REPORTS}: FOLDER}} names their folder)",
            )
        with open_text(path) as stream:
            content = stream.read()
        if why := unusable_text(content):
            return "", f"report {why}"
        found = sections(content)
        if found is None:
            report.note(
                "report has neither FINDINGS nor IMPRESSION, all of its text is the caption", path.name
            )
            return " ".join(content.split()), ""
        caption = caption_of(request, *found)
        return caption, "" if caption else "has no text in the sections that are asked for"

    columns = ("dicom_id", "study_id", "subject_id", "split")
    for where, row in csv_rows(request.files["captions"], columns, report):
        if row["split"] != request.split:
            continue
        image_id, study, subject = row["dicom_id"], row["study_id"], row["subject_id"]
        if not (image_id and (subject + study).isascii() and subject.isdigit() and study.isdigit()):
            report.skip("has no image id, or a subject or study that is no number", where)
            continue
        folder = f"p{subject[:2]}/p{subject}"
        caption, why = study_caption(folder, study)
        if why:
            report.skip(why, f"{where}: {folder}/s{study}.txt")
            continue
        labels = {"view": views.get(image_id, "")} if views else {}
        labels |= {"finding": findings.get(study, "")} if findings else {}
        path = request.image_path(f"{folder}/s{study}/{image_id}")
        yield where, Record(image_id, path, caption, subject, request.licence, labels)


def _views(request: ReadRequest) -> dict[str, str]:
    path = request.optional("metadata")
    if path is None:
        return {}
    rows = csv_rows(path, ("dicom_id", "ViewPosition"), request.report)
    return {row["dicom_id"]: row["ViewPosition"] for _, row in rows}


def _findings(request: ReadRequest) -> dict[str, str]:
    """Study to what is positive in it, ``Edema+Pneumonia``."""
    path = request.optional("chexpert")
    if path is None:
        return {}
    ids = ("subject_id", "study_id")
    return {
        row["study_id"]: "+".join(
            name for name, value in row.items() if name not in ids and value in ("1.0", "1")
        )
        for _, row in csv_rows(path, ids, request.report)
    }
