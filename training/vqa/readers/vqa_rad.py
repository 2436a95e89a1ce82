"""VQA-RAD: a JSON list with ``qid``, ``image_name``, ``question``, ``answer``, ``answer_type``, ``question_type``.

``answer_type`` is CLOSED or OPEN (``'CLOSED '`` occurs). ``question_type`` names one type or several; ``ATRIB`` and
``PRSE`` are typing errors. Several types are put in order and joined by ``+``: the order in which they were noted says
nothing. Some answers are JSON numbers.
"""

from collections.abc import Iterator

from training.vqa.items import Question, kind_of
from training.vqa.readers.request import ReadRequest, json_objects, text, yes_or_no

_SPELLING = {"ATRIB": "ATTRIB", "PRSE": "PRES"}


def read(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream one split in the order of its file.

    Raises:
        DataError: the file is not a JSON list.
    """
    for where, item in json_objects(request.files["questions"], request.report):
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
                image_id=name.rpartition(".")[0] or name,
                image_path=request.image_path(name),
                question=text(item, "question"),
                answer=answer,
                closed=closed,
                category=category,
                kind=kind_of(closed, category),
            ),
        )


def clean_types(raw: str) -> str:
    """``'POS, PRES'`` and ``'PRES, POS'`` are ``POS+PRES``; nothing at all is ``OTHER``."""
    types = {part.strip().upper() for part in raw.split(",")} - {""}
    return "+".join(sorted({_SPELLING.get(part, part) for part in types})) or "OTHER"
