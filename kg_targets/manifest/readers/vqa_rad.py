"""VQA-RAD: a JSON list with ``qid``, ``image_name``, ``question``, ``answer``, ``answer_type``, ``question_type``.

``answer_type`` is CLOSED or OPEN (``'CLOSED '`` occurs). ``question_type`` names one type or several; ``ATRIB`` and
``PRSE`` are typing errors. Several types are put in order and joined by ``+``: the order in which they were noted says
nothing. Some answers are JSON numbers.

As captions (for overlap checks and targets), the questions and answers of an image are one text, in the order of the
file; the label is the organ. A question answered "no" is left out and of one answered "yes" only the question stays:
"Is there a fracture? No." must not assert one.
"""

from collections.abc import Iterator

from kg_targets.errors import DataError, ManifestError
from kg_targets.manifest.files import json_objects, text
from kg_targets.manifest.question import Question, yes_or_no
from kg_targets.manifest.record import ReadRequest, Record

_SPELLING = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def read_captions(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one record per image, in the order in which images first occur.

    Raises:
        ManifestError: the file is not a JSON list.
    """
    path = request.files["captions"]
    texts: dict[str, list[str]] = {}
    organs: dict[str, str] = {}
    for where, item in json_objects(path, request.report, ManifestError):
        name = item.get("image_name")
        if not isinstance(name, str) or not name:
            request.report.skip("has no image_name", where)
            continue
        texts.setdefault(name, []).extend(
            _statement(str(item.get("question", "")), str(item.get("answer", "")))
        )
        organs.setdefault(name, str(item.get("image_organ", "")))
    for name, parts in texts.items():
        image_id, labels = _image_id(name), {"organ": organs[name]}
        image = request.image_path(name)
        yield path.name, Record(image_id, image, " ".join(parts), image_id, request.licence, labels)


def read_questions(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream one split's questions in the order of its file.

    Raises:
        DataError: the file is not a JSON list.
    """
    for where, item in json_objects(request.files["questions"], request.report, DataError):
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
                image_path=request.image_path(name),
                question=text(item, "question"),
                answer=answer,
                closed=closed,
                category=category,
            ),
        )


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
