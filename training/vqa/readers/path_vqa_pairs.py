"""PathVQA's early release ``QA_pairs_vb.json``: a JSON list of ``Image_ID``, ``Questions``, ``Answers``; no splits."""

from collections.abc import Iterator

from training.vqa.items import Question
from training.vqa.readers.path_vqa import path_question
from training.vqa.readers.request import ReadRequest, json_objects, text


def read(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream the pairs in the order of the file.

    Raises:
        DataError: the file is not a JSON list.
    """
    for number, (where, item) in enumerate(json_objects(request.files["questions"], request.report)):
        name = text(item, "Image_ID")
        yield (
            where,
            path_question(
                str(number),
                name,
                request.image_path(f"{name}.jpg"),
                text(item, "Questions"),
                text(item, "Answers"),
            ),
        )
