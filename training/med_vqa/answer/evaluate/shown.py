"""Which image a question is shown: its own, another one of the part, or the mean colour."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from training.errors import ConfigError
from training.med_vqa.model.images import ImageTable, blank_images
from training.med_vqa.model.saving import MedVQA
from training.vqa.items import Question

REAL, SHUFFLED, BLANK = IMAGES = ("real", "shuffled", "blank")
_MEAN_COLOUR = "the mean colour"


class Shown:
    """The images of a part's questions, real, shuffled or blank.

    Args:
        kind: one of ``IMAGES``.
        questions: of the part.
        root: folder that image paths are relative to; not read for ``blank``.
        med_vqa: the model whose preprocessing to use.
        seed: of the shuffle.
        max_broken: images that may be missing or unreadable.

    Raises:
        DataError: more are, or none is left.
        ConfigError: there are not two images to shuffle.
    """

    def __init__(
        self,
        kind: str,
        questions: Sequence[Question],
        root: Path,
        med_vqa: MedVQA,
        seed: int,
        max_broken: int,
    ) -> None:
        self._table = (
            None if kind == BLANK else ImageTable(questions, root, med_vqa, max_broken, "--max-broken")
        )
        self._blank = blank_images(med_vqa, 1)[0]
        self._others: dict[str, str] = {}
        if kind == SHUFFLED:
            self._others = derangement(
                [question.image_path for question in questions if self.has(question)], seed
            )

    @property
    def broken(self) -> int:
        """Images that are missing or cannot be read."""
        return 0 if self._table is None else len(self._table.broken)

    def has(self, question: Question) -> bool:
        """Whether there is an image to show."""
        return self._table is None or self._table.has(question)

    def name(self, question: Question) -> str:
        """Of the image that the question is shown."""
        if self._table is None:
            return _MEAN_COLOUR
        return self._others.get(question.image_path, question.image_path)

    @property
    def read(self) -> Callable[[str], Tensor]:
        """A name to the preprocessed image, float32 ``[3, S, S]``."""
        return (lambda _: self._blank) if self._table is None else self._table.normalised


def derangement(names: Sequence[str], seed: int) -> dict[str, str]:
    """Each of the distinct names to another one, and none to two: the next in a shuffled circle.

    The circle is in the order of sha256(seed, name), which no library version changes.

    Raises:
        ConfigError: there are fewer than two.
    """
    circle = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
    if len(circle) < 2:
        raise ConfigError(f"--images {SHUFFLED} needs two images at least, the part has {len(circle)}")
    return dict(zip(circle, [*circle[1:], circle[0]], strict=True))
