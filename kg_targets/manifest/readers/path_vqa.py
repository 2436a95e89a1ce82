"""PathVQA as its authors release it: ``qas/<part>/<part>_qa.pkl``, a pickled list of image, question, answer.

Its early release ``QA_pairs_vb.json`` is a JSON list of ``Image_ID``, ``Questions``, ``Answers`` without splits.

The pickles hold lists, dicts and strings only. They are read by an unpickler that refuses everything else, so that a
file from anywhere cannot run code here. A JSON file with the same list is read as well, and Parquet with the images.
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kg_targets.errors import DataError
from kg_targets.manifest.files import json_objects, objects, text
from kg_targets.manifest.parquet import is_parquet
from kg_targets.manifest.question import Question, yes_or_no
from kg_targets.manifest.readers import parquet_questions
from kg_targets.manifest.record import ReadRequest


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; plain lists and texts are expected")


def read(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream one split in the order of its file.

    Raises:
        DataError: the file is damaged, no list, or a pickle of anything but plain lists and texts.
        ManifestError: a Parquet file is damaged or lacks a column.
    """
    path = request.files["questions"]
    if is_parquet(path):
        for number, (where, row) in enumerate(parquet_questions.read(request, "questions")):
            id = f"{request.split}-{number}"
            yield where, _question(id, row.image_id, row.image_path, row.question, row.answer)
        return
    for number, (where, item) in enumerate(objects(_content(path), path, request.report)):
        name, answer = text(item, "image"), text(item, "answer")
        yield (
            where,
            _question(
                f"{request.split}-{number}",
                name,
                request.image_path(name),
                text(item, "question"),
                answer,
            ),
        )


def read_pairs(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream the early release's pairs in the order of the file.

    Raises:
        DataError: the file is not a JSON list.
    """
    pairs = json_objects(request.files["questions"], request.report, DataError)
    for number, (where, item) in enumerate(pairs):
        name = text(item, "Image_ID")
        path = request.image_path(name)
        yield where, _question(str(number), name, path, text(item, "Questions"), text(item, "Answers"))


def _question(id: str, image_id: str, image_path: str, question: str, answer: str) -> Question:
    """A PathVQA question: yes/no questions are closed, the others free-form; the category is its first word."""
    closed = yes_or_no(answer)
    first = question.split(maxsplit=1)[0].lower().strip("?,.") if question.split() else ""
    category = "yes/no" if closed else first if first in _FREE_FORM else "other"
    return Question(id, image_id, image_path, question, answer, closed, category)


_FREE_FORM = ("what", "where", "how", "when", "whose", "why", "who")
"""The question words that the data set's authors tell apart."""


def _content(path: Path) -> list[Any]:
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        else:
            with path.open("rb") as stream:
                content = _PlainUnpickler(stream).load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{path} is not readable ({error}): download it again") from error
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a list of questions")
    return content
