"""One question about one image, as every data set is read."""

from dataclasses import dataclass

from training.vqa.normalise import normalise_answer


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer and what it counts as in the scores."""

    id: str
    """Unique within the data set."""
    image_id: str
    """Questions that share it are not independent: parts are cut, and intervals are drawn, by image."""
    image_path: str
    """Relative to the data root, with forward slashes; empty where the data set has no images here."""
    question: str
    answer: str
    """As in the file; the first one where several are right."""
    closed: bool
    """Asked with a fixed choice (yes/no, left/right), as the data set marks it; see ``docs/vqa_data.md``."""
    category: str
    """What scores are broken down by."""
    kind: str
    """Category with ``open`` or ``closed``: what the majority floor goes by."""
    references: tuple[str, ...] = ()
    """Every right answer as in the file, where there are several; else empty."""

    def accepted(self, language: str = "en") -> tuple[str, ...]:
        """Its right answers, normalised, each once; those that normalise to nothing are left out."""
        texts = (normalise_answer(text, language) for text in self.references or (self.answer,))
        return tuple(dict.fromkeys(text for text in texts if text))


def kind_of(closed: bool, category: str) -> str:
    """``closed PRES`` and the like."""
    return f"{'closed' if closed else 'open'} {category}"
