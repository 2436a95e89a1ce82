"""One question about one image, as every data set is read, and the checks every reader applies to it."""

from collections.abc import Iterator
from dataclasses import dataclass

from kg_targets.errors import DataError
from kg_targets.manifest.record import ReadReport, safe_relative_path, unusable_text

TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
ALL = "all"
"""The only split of a data set of questions without official ones."""
LANGUAGES = ("en", "zh")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer and what it counts as in the scores."""

    id: str
    """Unique within the data set."""
    image_id: str
    """Questions that share it are not independent: splits are made, and intervals are drawn, by image."""
    image_path: str
    """Relative to the data root, with forward slashes; empty where the data set has no images here."""
    question: str
    answer: str
    """As in the file; the first one where several are right."""
    closed: bool
    """Asked with a fixed choice (yes/no, left/right), as the data set marks it; see ``docs/vqa_data.md``."""
    category: str
    """Group by which scores are broken down."""
    references: tuple[str, ...] = ()
    """Every right answer as in the file, where there are several; else empty."""

    @property
    def kind(self) -> str:
        """``open what``, ``closed PRES`` and the like: what the majority baseline goes by."""
        return f"{'closed' if self.closed else 'open'} {self.category}"


def yes_or_no(answer: str) -> bool:
    """Whether an answer is yes or no, case, white space and a full stop aside."""
    return answer.strip().rstrip(".").lower() in ("yes", "no")


def checked_questions(questions: Iterator[tuple[str, Question]], report: ReadReport) -> Iterator[Question]:
    """Check what every data set promises: paths stay inside the data root, ids are unique, texts are usable.

    Args:
        questions: pairs of (place, question).
        report: filled while reading.

    Raises:
        ManifestError: an image path leaves the data root.
        DataError: two questions have the same id.
    """
    places: dict[str, str] = {}
    for where, question in questions:
        problem = _problem(question)
        if problem:
            report.skip(problem, where)
            continue
        safe_relative_path(question.image_path, where)
        if question.id in places:
            raise DataError(
                f"{where}: question id {question.id!r} was already given at {places[question.id]}: "
                "ids must be unique, rename or remove one of them"
            )
        places[question.id] = where
        report.read += 1
        yield question


def _problem(question: Question) -> str | None:
    """Reason why a row cannot be kept; None if it can."""
    if not question.image_id:
        return "names no image"
    if not question.id:
        return "has no question id"
    fields = {"image": question.image_id, "question": question.question, "answer": question.answer}
    return next((f"{name} {why}" for name, value in fields.items() if (why := unusable_text(value))), None)
