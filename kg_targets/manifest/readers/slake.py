"""SLAKE: one JSON list per split holds English and Chinese questions (``q_lang``); a data set here is one language.

``answer_type`` is OPEN or CLOSED, ``content_type`` the category. The image is ``img_name``, ``xmlab102/source.jpg``.
"""

from collections.abc import Iterator

from kg_targets.errors import DataError
from kg_targets.manifest.files import json_objects, text
from kg_targets.manifest.question import Question
from kg_targets.manifest.record import ReadRequest


def read(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream one split's questions of the request's language in the order of the file.

    Raises:
        DataError: the file is not a JSON list.
    """
    for where, item in json_objects(request.files["questions"], request.report, DataError):
        if text(item, "q_lang") != request.language:
            continue
        name = text(item, "img_name")
        closed = text(item, "answer_type").strip().upper() == "CLOSED"
        category = text(item, "content_type").strip() or "Other"
        yield (
            where,
            Question(
                id=text(item, "qid"),
                image_id=name.partition("/")[0],
                image_path=request.image_path(name),
                question=text(item, "question"),
                answer=text(item, "answer"),
                closed=closed,
                category=category,
            ),
        )
