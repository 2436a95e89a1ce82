"""ROCO (v1): ``captions.txt``, tab-separated, with ``cuis.txt`` and ``licences.txt`` beside it where they are present.

A copy in Parquet has image, image_id and caption. Images of one article belong together, so the article (PMC id, from
``licences.txt``) is the group.
"""

from collections.abc import Iterator

from kg_targets.manifest.files import csv_rows, lines
from kg_targets.manifest.parquet import is_parquet
from kg_targets.manifest.readers.roco_v2 import Caption, parquet_captions
from kg_targets.manifest.record import ReadRequest, Record, unusable_text


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split.

    Raises:
        ManifestError: a file cannot be read, or ``licences.txt`` has other columns.
    """
    cuis = _cuis(request)
    articles = _articles(request)
    for where, image_id, caption, shipped in _captions(request):
        article, licence = articles.get(image_id, ("", ""))
        yield (
            where,
            Record(
                image_id=image_id,
                image_path=request.image_path(image_id),
                caption=caption,
                group_id=article or image_id,
                licence=licence or request.licence,
                cuis=cuis.get(image_id, shipped),
            ),
        )


def _captions(request: ReadRequest) -> Iterator[Caption]:
    for path in request.all_files("captions"):
        if is_parquet(path):
            yield from parquet_captions(path, request.report)
            continue
        for where, line in lines(path):
            image_id, tab, caption = line.partition("\t")
            image_id, caption = image_id.strip(), caption.strip()
            why = unusable_text(line) or ("" if tab and image_id else "is not `id<TAB>caption`")
            if why:
                request.report.skip(f"caption line {why}", where)
            else:
                yield where, image_id, caption, ()


def _cuis(request: ReadRequest) -> dict[str, tuple[str, ...]]:
    path = request.optional("cuis")
    if path is None:
        return {}
    cuis: dict[str, tuple[str, ...]] = {}
    for where, line in lines(path):
        image_id, *given = (part.strip() for part in line.split("\t"))
        if image_id in cuis:
            request.report.note("image id is repeated in cuis.txt, its concepts are united", where)
        cuis[image_id] = (*cuis.get(image_id, ()), *filter(None, given))
    return cuis


def _articles(request: ReadRequest) -> dict[str, tuple[str, str]]:
    """Image id to (PMC id of its article, licence)."""
    path = request.optional("licences")
    if path is None:
        request.report.note(
            "licences.txt is not there: every image counts as a case of its own", str(request.split)
        )
        return {}
    rows = csv_rows(path, ("ROCO_ID", "PMC_ID", "CC"), request.report)
    return {row["ROCO_ID"]: (row["PMC_ID"].partition("_")[0], row["CC"]) for _, row in rows}
