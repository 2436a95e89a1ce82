"""Questions in Parquet with the images inside, as Hugging Face's copies of VQA-RAD and PathVQA are.

Columns are image (bytes), question and answer, nothing else: an image is known by its bytes only, so equal bytes are
one image, in all splits, and its id is their digest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kg_targets.errors import ManifestError
from kg_targets.manifest.files import check_columns
from kg_targets.manifest.parquet import IN_FILE, image_digests, parquet_header, parquet_rows
from kg_targets.manifest.record import ReadRequest
from kg_targets.manifest.values import plain_text


@dataclass(frozen=True)
class ParquetQuestion:
    """A row."""

    image_id: str
    image_path: str
    """File and row where the image first occurs."""
    question: str
    answer: str


def read(request: ReadRequest, role: str) -> Iterator[tuple[str, ParquetQuestion]]:
    """Stream (place, row) of a split's files; rows without an image are counted and skipped.

    Raises:
        ManifestError: a file is damaged or lacks a column.
    """
    first: dict[str, str] = {}
    for file in request.all_files(role):
        names, image = parquet_header(file)
        check_columns(file, ("question", "answer"), names)
        if not image:
            raise ManifestError(f"{file}: no column holds the bytes of images")
        digests = list(image_digests(file, image))
        for where, row in parquet_rows(file, ["question", "answer"], request.place(file), request.report):
            digest = digests[int(str(row[IN_FILE]).rpartition("/")[2])]
            if not digest:
                request.report.skip("has no image", where)
                continue
            path = first.setdefault(digest, str(row[IN_FILE]))
            yield where, ParquetQuestion(digest, path, plain_text(row["question"]), plain_text(row["answer"]))
