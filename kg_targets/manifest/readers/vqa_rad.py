"""VQA-RAD: questions and answers per image, read as one text per image (for overlap checks and targets).

The caption is every question with its answer in the order of the file; the label is the organ. A question answered
"no" is left out and of one answered "yes" only the question stays: "Is there a fracture? No." must not assert one.
"""

import json
from collections.abc import Iterator

from kg_targets.errors import ManifestError
from kg_targets.manifest.readers.request import ReadRequest
from kg_targets.manifest.record import Record


def read(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """Stream one split, one record per image, in the order in which images first occur.

    Raises:
        ManifestError: the file is not a JSON list of question objects.
    """
    path = request.files["captions"]
    try:
        questions = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} is not readable as JSON ({error}): download it again") from error
    if not isinstance(questions, list):
        raise ManifestError(f"{path} must hold a JSON list of questions")
    texts: dict[str, list[str]] = {}
    organs: dict[str, str] = {}
    for number, item in enumerate(questions):
        name = item.get("image_name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            request.report.skip("has no image_name", f"{path.name} item {number}")
            continue
        texts.setdefault(name, []).extend(
            _statement(str(item.get("question", "")), str(item.get("answer", "")))
        )
        organs.setdefault(name, str(item.get("image_organ", "")))
    for name, parts in texts.items():
        image = f"{request.images}/{name}"
        image_id = name.rpartition(".")[0] or name
        labels = {"organ": organs[name]}
        yield path.name, Record(image_id, image, " ".join(parts), image_id, request.licence, labels)


def _statement(question: str, answer: str) -> list[str]:
    """What a question and its answer assert, as zero or one sentence."""
    closed = answer.strip().strip(".").lower()
    if closed == "no":
        return []
    return [question if closed == "yes" else f"{question} {answer}."]
