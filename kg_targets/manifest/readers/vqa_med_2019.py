"""VQA-Med-2019: text files, one question a line, fields parted by ``|``.

The test file has image, category, question, answer (role ``questions``). Training and validation come as one file per
category with image, question, answer; the role is the category. ``#`` parts several right answers: each is accepted.
Yes/no questions, which occur under modality and abnormality, are closed.
"""

from collections.abc import Iterator
from pathlib import Path

from kg_targets.errors import DataError
from kg_targets.manifest.question import Question, yes_or_no
from kg_targets.manifest.record import ReadRequest

CATEGORIES = ("modality", "plane", "organ", "abnormality")
WITH_CATEGORY = "questions"
"""Role of a file whose lines name their category."""


def read(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """Stream one split, file by file, in the order of the lines; lines of another shape are counted and skipped.

    Raises:
        DataError: a file cannot be read.
    """
    number = 0
    for role, path in request.files.items():
        for where, line in _lines(path):
            fields = [field.strip() for field in line.split("|")]
            if len(fields) != (4 if role == WITH_CATEGORY else 3):
                request.report.skip("has not as many fields as expected, parted by |", where)
                continue
            category = fields.pop(1).lower() if role == WITH_CATEGORY else role
            if category not in CATEGORIES:
                request.report.skip("has none of the four categories", where)
                continue
            image, question, answers = fields
            several = tuple(part for answer in answers.split("#") if (part := answer.strip()))
            closed = yes_or_no(answers)
            yield (
                where,
                Question(
                    id=f"{request.split}-{number}",
                    image_id=image,
                    image_path=request.image_path(image),
                    question=question,
                    answer=several[0] if several else "",
                    closed=closed,
                    category=category,
                    references=several if len(several) > 1 else (),
                ),
            )
            number += 1


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable ({error}): download it again") from error
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield f"{path.name} line {number}", line
