"""The images that questions ask about, each decoded once, whatever kind of image it is (training/data/decode.py)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from training.data.decode import BrokenImage, decode, for_each
from training.data.files import resolve
from training.data.sources.folder import read_bytes
from training.data.transforms import PixelTransform
from training.errors import DataError
from training.med_vqa.model.saving import MedVQA
from training.vqa.items import Question

UNNAMED = "no image file is named"


class Pictures:
    """P images below a data root, in memory, in the order in which the questions first name them.

    Args:
        questions: whose images they are.
        root: folder that ``image_path`` is relative to.
        vqa: the model whose size and preprocessing to use.
        max_broken: images that may be missing or unreadable.
        option: what ``max_broken`` is called where the user sets it, for messages.

    Raises:
        DataError: more are missing or unreadable, none is left, or a path leaves the data root.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        root: Path,
        vqa: MedVQA,
        max_broken: int = 0,
        option: str = "data.max_broken",
    ) -> None:
        paths = list(dict.fromkeys(question.image_path for question in questions))
        transform = PixelTransform(vqa.preprocess, vqa.mean, vqa.std)
        pixels = torch.empty((len(paths), *transform.shape), dtype=torch.uint8)
        out, problems = pixels.numpy(), dict[int, str]()
        self._mean, self._std = vqa.mean, vqa.std

        def fill(place: int) -> None:
            try:
                out[place] = transform(_read(root, paths[place]))
            except BrokenImage as error:
                problems[place] = str(error)

        for_each(fill, range(len(paths)))
        self.broken = [problems[place] for place in sorted(problems)]
        """Images that are missing or cannot be read, each with where it is and what is wrong."""
        if len(self.broken) > max_broken or len(self.broken) == len(paths):
            raise DataError(
                f"{len(self.broken)} of {len(paths)} images are missing or broken, {max_broken} allowed ({option}); "
                f"the first: {self.broken[0] if self.broken else UNNAMED}"
            )
        kept = [place for place in range(len(paths)) if place not in problems]
        self.pixels = pixels[kept] if problems else pixels
        """uint8 ``[P, 3, S, S]``."""
        self._places = {paths[place]: row for row, place in enumerate(kept)}

    def __len__(self) -> int:
        return len(self.pixels)

    def has(self, question: Question) -> bool:
        """Whether a question's image can be shown."""
        return question.image_path in self._places

    def rows(self, questions: Sequence[Question]) -> Tensor:
        """Rows of the questions' images, int64 ``[Q]``; all of them must be there."""
        return torch.tensor([self._places[question.image_path] for question in questions], dtype=torch.int64)

    def normalised(self, path: str) -> Tensor:
        """An image as the model takes it, not augmented, float32 ``[3, S, S]``, on the CPU."""
        return (self.pixels[self._places[path]].float() / 255.0 - self._mean) / self._std


def blank_images(vqa: MedVQA, count: int) -> Tensor:
    """Images of the mean colour of the preprocessing, which shows as zeros: float32 ``[count, 3, S, S]``."""
    return torch.zeros(count, 3, vqa.size, vqa.size)


def _read(root: Path, path: str) -> Image.Image:
    if not path:
        raise BrokenImage(UNNAMED)
    place = resolve(root, path)
    return decode(read_bytes(place), str(place))
