"""ROCOv2, as its files (CSV and a folder of images a split) or as Parquet with the images inside.

``<split>_captions.csv`` has ID and Caption, ``<split>_concepts.csv`` ID and CUIs, separated by ``;``. Concepts that
people gave, ``<split>_concepts_manual.csv``, are labels: modality, and of X-rays body region and direction. The article
of an image (PMCID in ``license_information.csv``) is its case. Parquet has image, image_id, caption and cui, which are
the manual concepts.

What people gave is what retrieval is evaluated by, so it is left out of the concepts that make targets, though
``_concepts.csv`` repeats it: with the option ``manual_concepts: labels_and_targets`` it stays.
"""

from collections.abc import Iterator
from pathlib import Path

from kg_targets.errors import ManifestError
from kg_targets.manifest.files import check_columns, csv_rows
from kg_targets.manifest.given_concepts import concepts_of
from kg_targets.manifest.parquet import is_parquet, parquet_header, parquet_rows
from kg_targets.manifest.record import ReadReport, ReadRequest, Record
from kg_targets.manifest.values import plain_text

MANUAL = {
    "C0040405": ("modality", "CT"),
    "C0024485": ("modality", "MR"),
    "C0041618": ("modality", "ultrasound"),
    "C1306645": ("modality", "x-ray"),
    "C0002978": ("modality", "angiography"),
    "C0032743": ("modality", "PET"),
    "C1699633": ("modality", "PET/CT"),
    "C0817096": ("region", "chest"),
    "C0000726": ("region", "abdomen"),
    "C0030797": ("region", "pelvis"),
    "C0037303": ("region", "skull"),
    "C0037949": ("region", "spine"),
    "C0023216": ("region", "lower extremity"),
    "C1140618": ("region", "upper extremity"),
    "C0006141": ("region", "breast"),
    "C1999039": ("direction", "anterior-posterior"),
    "C1996865": ("direction", "posterior-anterior"),
    "C0205129": ("direction", "sagittal"),
    "C0205123": ("direction", "coronal"),
}
"""CUI of a manual concept to the label and its value."""
LABELS = ("modality", "region", "direction")
MANUAL_CONCEPTS = "manual_concepts"
"""Option: what manual concepts are."""
AS_LABELS, AS_TARGETS = USES = ("labels", "labels_and_targets")
OPTIONS = frozenset((MANUAL_CONCEPTS,))


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split.

    Raises:
        ManifestError: a file cannot be read or lacks a column, or the option has another value.
    """
    use = request.options.get(MANUAL_CONCEPTS, AS_LABELS)
    if use not in USES:
        raise ManifestError(f"options: {MANUAL_CONCEPTS} must be {' or '.join(USES)}, not {use!r}")
    report, names = request.report, _table(request, "names", "CUI", "Canonical name")
    automatic = _table(request, "concepts", "ID", "CUIs")
    manual = _table(request, "manual", "ID", "CUIs")
    articles = _table(request, "licences", "ID", "PMCID")
    licences = _table(request, "licences", "ID", "Attribution")
    if not articles:
        report.note(
            "license_information.csv is not there: every image counts as a case of its own", request.split
        )
    for where, image_id, caption, shipped in _captions(request):
        if not image_id:
            report.skip("has no image id", where)
            continue
        given = concepts_of(manual[image_id])[0] if image_id in manual else shipped
        labels = dict.fromkeys(LABELS, "")
        for cui in dict.fromkeys(given):
            label, value = MANUAL.get(cui, ("", ""))
            if not label:
                name = names.get(cui, "no name")
                report.note(f"manual concept {cui} ({name}) is no modality, region or direction", where)
                continue
            labels[label] = f"{labels[label]}+{value}" if labels[label] else value
        cuis = concepts_of(automatic[image_id])[0] if image_id in automatic else shipped
        if use == AS_LABELS:
            kept = tuple(cui for cui in cuis if cui not in MANUAL and cui not in given)
            for _ in range(len(cuis) - len(kept)):
                report.note(
                    f"manual concept is a label and makes no targets (options: {MANUAL_CONCEPTS})", where
                )
            cuis = kept
        record = Record(
            image_id=image_id,
            image_path=request.image_path(image_id),
            caption=caption,
            group_id=articles.get(image_id) or image_id,
            licence=licences.get(image_id, "").partition("[")[0].strip() or request.licence,
            labels=labels if given or manual else {},
            cuis=cuis,
        )
        yield where, record


Caption = tuple[str, str, str, tuple[str, ...]]
"""Place, image id, caption, CUIs in the same row."""


def _captions(request: ReadRequest) -> Iterator[Caption]:
    for path in request.all_files("captions"):
        if is_parquet(path):
            yield from parquet_captions(path, request.report)
        else:
            for where, row in csv_rows(path, ("ID", "Caption"), request.report):
                yield where, row["ID"].strip(), row["Caption"].strip(), ()


def parquet_captions(path: Path, report: ReadReport) -> Iterator[Caption]:
    """Rows of Parquet with the images inside, ROCO's or ROCOv2's.

    Raises:
        ManifestError: the file is damaged or lacks a column.
    """
    header = parquet_header(path)[0]
    check_columns(path, ("image_id", "caption"), header)
    names = [name for name in header if name in ("image_id", "caption", "cui")]
    for where, row in parquet_rows(path, names, "", report):
        cuis = concepts_of(row.get("cui"))[0]
        yield where, plain_text(row["image_id"]).strip(), plain_text(row["caption"]).strip(), cuis


def _table(request: ReadRequest, role: str, key: str, value: str) -> dict[str, str]:
    """Two columns of an optional file; empty where it is not there."""
    path = request.optional(role)
    if path is None:
        return {}
    return {row[key].strip(): row[value].strip() for _, row in csv_rows(path, (key, value), request.report)}
