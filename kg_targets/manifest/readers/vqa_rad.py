"""VQA-RAD: a JSON list with ``qid``, ``image_name``, ``question``, ``answer``, ``answer_type``, ``question_type``.

``answer_type`` is CLOSED or OPEN (``'CLOSED '`` occurs). ``question_type`` names one type or several; ``ATRIB`` and
``PRSE`` are typing errors. Several types are put in order and joined by ``+``: the order in which they were noted says
nothing. Some answers are JSON numbers.

It is published as one file, ``VQA_RAD Dataset Public.json``, and used as two, trainset.json and testset.json, which
follow from it (``split_rows``) and are derived while reading where only that file is there. Hugging Face's copy in
Parquet has images, questions and answers only.

As captions (for overlap checks and targets), the questions and answers of an image are one text, in the order of the
file; the label is the organ. A question answered "no" is left out and of one answered "yes" only the question stays:
"Is there a fracture? No." must not assert one.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kg_targets.errors import DataError, KGTargetsError, ManifestError
from kg_targets.manifest.files import json_objects, text
from kg_targets.manifest.parquet import is_parquet
from kg_targets.manifest.question import TEST, Question, yes_or_no
from kg_targets.manifest.readers import parquet_questions
from kg_targets.manifest.record import ReadRequest, Record

_TEST = "test_"
IMAGE_PATH = "image_path"
"""Key of rows of Parquet files, where the image is inside."""
_KEPT = ("image_name", "image_organ", "answer", "answer_type", "question_type", "question")
_SPELLING = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def read_captions(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one record per image, in the order in which images first occur.

    Raises:
        ManifestError: the file is not a JSON list.
    """
    path = request.files["captions"]
    texts: dict[str, list[str]] = {}
    organs, paths = dict[str, str](), dict[str, str]()
    for where, item in _rows(request, path, ManifestError):
        name = item.get("image_name")
        if not isinstance(name, str) or not name:
            request.report.skip("has no image_name", where)
            continue
        texts.setdefault(name, []).extend(
            _statement(str(item.get("question", "")), str(item.get("answer", "")))
        )
        organs.setdefault(name, str(item.get("image_organ", "")))
        paths.setdefault(name, _image_path(request, item))
    for name, parts in texts.items():
        image_id, labels = _image_id(name), {"organ": organs[name]}
        yield path.name, Record(image_id, paths[name], " ".join(parts), image_id, request.licence, labels)


def read_questions(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream one split's questions in the order of its file.

    Raises:
        DataError: the file is not a JSON list.
    """
    for where, item in _rows(request, request.files["questions"], DataError):
        name, answer = text(item, "image_name"), text(item, "answer")
        category = clean_types(text(item, "question_type"))
        marked = text(item, "answer_type").strip().upper()
        closed = marked == "CLOSED"
        if marked not in ("CLOSED", "OPEN"):
            request.report.note("answer_type is neither OPEN nor CLOSED, yes/no counts as closed", where)
            closed = yes_or_no(answer)
        yield (
            where,
            Question(
                id=text(item, "qid"),
                image_id=_image_id(name),
                image_path=_image_path(request, item),
                question=text(item, "question"),
                answer=answer,
                closed=closed,
                category=category,
            ),
        )


def prepare(request: ReadRequest) -> bytes:
    """Content of trainset.json or testset.json, to the byte as they are in use, from the published file.

    Raises:
        DataError: it is not the published file.
    """
    path = request.files["questions"]
    items = [item for _, item in json_objects(path, request.report, DataError)]
    if not _as_published(items):
        raise DataError(
            f"{path} is not VQA-RAD's published file: it has no phrase_type that begins with test_"
        )
    return json.dumps(split_rows(items, request.split)).encode()


def split_rows(items: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """The rows of ``train`` or ``test`` from the published rows.

    Test rows are those of ``phrase_type`` test_freeform and test_para. Train are the others, and of every row, a test
    row's too, its ``question_frame`` where it is not NULL: the same question for the same answer, framed otherwise. So
    284 of train's 3,064 questions are a test question in other words. Both parts count on in one numbering.
    """
    rows, number = [], 0
    for item in items:
        number += 1
        kind = text(item, "phrase_type").strip().lower()
        test = kind.startswith(_TEST)
        row = {
            "qid": number,
            **{name: item.get(name, "") for name in _KEPT},
            "phrase_type": kind.removeprefix(_TEST),
        }
        if test == (split == TEST):
            rows.append(row)
        frame = item.get("question_frame")
        if isinstance(frame, str) and frame.strip().upper() not in ("", "NULL"):
            number += 1
            if split != TEST:
                rows.append(row | {"qid": number, "question": frame, "phrase_type": "frame"})
    return rows


def _as_published(items: list[dict[str, Any]]) -> bool:
    return any(text(item, "phrase_type").strip().lower().startswith(_TEST) for item in items)


def _rows(
    request: ReadRequest, path: Path, error: type[KGTargetsError]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if is_parquet(path):
        role = next(role for role, file in request.files.items() if file == path)
        return _parquet_rows(request, role)
    rows = list(json_objects(path, request.report, error))
    items = [item for _, item in rows]
    if not _as_published(items):
        return iter(rows)
    return iter([(f"{path.name} qid {row['qid']}", row) for row in split_rows(items, request.split)])


def _parquet_rows(request: ReadRequest, role: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of Hugging Face's copy, which has neither ids nor types, in the keys of the other files."""
    for number, (where, row) in enumerate(parquet_questions.read(request, role)):
        image = {"image_name": row.image_id, IMAGE_PATH: row.image_path}
        asked = {"qid": f"{request.split}-{number}", "question": row.question, "answer": row.answer}
        yield where, image | asked


def _image_path(request: ReadRequest, item: dict[str, Any]) -> str:
    return text(item, IMAGE_PATH) or request.image_path(text(item, "image_name"))


def clean_types(raw: str) -> str:
    """``'POS, PRES'`` and ``'PRES, POS'`` are ``POS+PRES``; nothing at all is ``OTHER``."""
    types = {part.strip().upper() for part in raw.split(",")} - {""}
    return "+".join(sorted({_SPELLING.get(part, part) for part in types})) or "OTHER"


def _image_id(name: str) -> str:
    return name.rpartition(".")[0] or name


def _statement(question: str, answer: str) -> list[str]:
    """Statement that a question and its answer make, as zero or one sentence."""
    closed = answer.strip().strip(".").lower()
    if closed == "no":
        return []
    return [question if closed == "yes" else f"{question} {answer}."]
