"""IU X-ray (Open-i): chest X-ray reports of Indiana University, an image of a study a record, the study is the case.

As Open-i has it, an XML file a report (``ecgen-radiology/1.xml``); as on Kaggle, ``indiana_reports.csv`` with
``indiana_projections.csv``, which names the images; or one table with report_id, image_path, findings, impression and
mesh_labels. Labels are ``finding``, the main headings of the MeSH terms that annotators gave, and ``normal``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from kg_targets.errors import ManifestError, printable
from kg_targets.manifest.files import csv_header, csv_rows
from kg_targets.manifest.record import ReadRequest, Record
from kg_targets.manifest.reports import TEXT, caption_of

OPTIONS = frozenset((TEXT,))
_ONE_TABLE = ("report_id", "image_path", "findings", "impression", "mesh_labels")
_REPORTS = ("uid", "findings", "impression", "MeSH")


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split.

    Raises:
        ManifestError: a file cannot be read, lacks a column, or the option ``text`` has another value.
    """
    for path in request.all_files("captions"):
        if path.suffix.lower() == ".xml":
            yield from _xml(path, request)
        elif "uid" in csv_header(path):
            yield from _kaggle(path, request)
        else:
            for where, row in csv_rows(path, _ONE_TABLE, request.report):
                images = (
                    [(row["image_path"], request.located(row["image_path"]), "")] if row["image_path"] else []
                )
                yield from _study(
                    request, where, row["report_id"], row["findings"], row["impression"],
                    row["mesh_labels"].split("|"), images,
                )  # fmt: skip


Image = tuple[str, str, str]
"""Name of an image, its path and its projection."""


def _xml(path: Path, request: ReadRequest) -> Iterator[tuple[str, Record]]:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        request.report.skip(f"is not readable XML ({printable(str(error))[:100]})", path.name)
        return
    texts = {text.get("Label", ""): (text.text or "") for text in root.iter("AbstractText")}
    names = [image.get("id", "") for image in root.iter("parentImage")]
    images = [(name, request.image_path(name), "") for name in filter(None, names)]
    terms = [term.text or "" for term in root.iter("major")]
    yield from _study(
        request,
        path.name,
        f"CXR{path.stem}",
        texts.get("FINDINGS", ""),
        texts.get("IMPRESSION", ""),
        terms,
        images,
    )


def _kaggle(path: Path, request: ReadRequest) -> Iterator[tuple[str, Record]]:
    projections = request.optional("projections")
    if projections is None:
        raise ManifestError(f"{path.parent / 'indiana_projections.csv'} does not exist: it names the images")
    of_study: dict[str, list[Image]] = {}
    for _, row in csv_rows(projections, ("uid", "filename", "projection"), request.report):
        name = row["filename"]
        of_study.setdefault(row["uid"], []).append((name, request.image_path(name), row["projection"]))
    for where, row in csv_rows(path, _REPORTS, request.report):
        yield from _study(
            request, where, f"CXR{row['uid']}", row["findings"], row["impression"], row["MeSH"].split(";"),
            of_study.get(row["uid"], []),
        )  # fmt: skip


def _study(
    request: ReadRequest, where: str, study: str, findings: str, impression: str, terms: Iterable[str],
    images: list[Image],
) -> Iterator[tuple[str, Record]]:  # fmt: skip
    """A record for each image of a study."""
    caption = caption_of(request, findings, impression)
    if not study or not caption:
        request.report.skip("has no text in the sections that are asked for" if study else "has no id", where)
        return
    if not images:
        request.report.skip("names no image", where)
        return
    headings = dict.fromkeys(term.partition("/")[0].strip() for term in terms if term.strip())
    normal = list(headings) == ["normal"]
    for name, path, projection in images:
        labels = {"finding": "+".join(headings), "normal": ("yes" if normal else "no") if headings else ""}
        if projection:
            labels["projection"] = projection
        yield where, Record(Path(name).stem, path, caption, study, request.licence, labels)
