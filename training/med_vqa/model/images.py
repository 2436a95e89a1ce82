"""The images of questions, and the views of images in a training step: new augmentations, or kept tokens.

All that is random is drawn for the whole batch from (seed, step), so that an image is seen alike whatever the number of
processes. No flips: left and right mean something. A step shows one view of each item (fine-tuning) or two
(pre-training).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from kg_targets.manifest import Question
from training.data.config import ViewsConfig
from training.data.decode import BrokenImage, for_each
from training.data.feature_cache import FrozenFeatures
from training.data.sources import ImageListing, ImageSource, open_source
from training.data.transforms import PixelTransform, augmentation, step_generator
from training.errors import ConfigError, DataError
from training.med_vqa.model.saving import MedVQA

UNNAMED = "no image file is named"
_MEAN_COLOUR = "the mean colour"


class ImageTable:
    """P images below a data root, in memory, in the order in which the questions first name them.

    Args:
        questions: whose images they are.
        root: folder that ``image_path`` is relative to, Parquet files or tar shards.
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
        paths, source = _source_of(questions, root)
        transform = PixelTransform(vqa.preprocess, vqa.mean, vqa.std)
        pixels = torch.empty((len(paths), *transform.shape), dtype=torch.uint8)
        out, problems = pixels.numpy(), dict[int, str]()
        self._mean, self._std = vqa.mean, vqa.std

        def fill(place: int) -> None:
            try:
                if not paths[place]:
                    raise BrokenImage(UNNAMED)
                out[place] = transform(source.read(place))
            except BrokenImage as error:
                problems[place] = str(error)

        for_each(fill, range(len(paths)))
        self.broken = [problems[place] for place in sorted(problems)]
        """Images that are missing or cannot be read, each with where it is and what is wrong."""
        _refuse_broken(self.broken, len(paths), max_broken, option)
        kept = [place for place in range(len(paths)) if place not in problems]
        self.pixels = pixels[kept] if problems else pixels
        """uint8 ``[P, 3, S, S]``."""
        self._places = {paths[place]: row for row, place in enumerate(kept)}

    def __len__(self) -> int:
        return len(self.pixels)

    def has(self, question: Question) -> bool:
        """True if a question's image can be shown."""
        return question.image_path in self._places

    def rows(self, questions: Sequence[Question]) -> Tensor:
        """Rows of the questions' images, int64 ``[Q]``; all of them must exist."""
        return torch.tensor([self._places[question.image_path] for question in questions], dtype=torch.int64)

    def normalised(self, path: str) -> Tensor:
        """An image as the model takes it, not augmented, float32 ``[3, S, S]``, on the CPU."""
        return (self.pixels[self._places[path]].float() / 255.0 - self._mean) / self._std


def check_images_present(questions: Sequence[Question], root: Path, max_broken: int) -> None:
    """Look whether the questions' images are there, without reading any: before weights are downloaded for them.

    Raises:
        DataError: more than ``max_broken`` are missing, or all, or a path leaves the data root.
    """
    paths, source = _source_of(questions, root)
    missing = [
        source.name(place) if path else UNNAMED
        for place, (path, there) in enumerate(zip(paths, source.present(), strict=True))
        if not (path and there)
    ]
    _refuse_broken(missing, len(paths), max_broken, "data.max_broken")


def _source_of(questions: Sequence[Question], root: Path) -> tuple[list[str], ImageSource]:
    """The paths of the questions' images in the order in which they are first named, and where those are read."""
    ids = {question.image_path: question.image_id for question in questions}
    return list(ids), open_source(root, ImageListing(list(ids.values()), list(ids)))


def _refuse_broken(broken: Sequence[str], count: int, max_broken: int, option: str) -> None:
    if len(broken) > max_broken or len(broken) == count:
        raise DataError(
            f"{len(broken)} of {count} images are missing or broken, {max_broken} allowed ({option}); "
            f"the first: {broken[0] if broken else UNNAMED}"
        )


def blank_images(vqa: MedVQA, count: int) -> Tensor:
    """Images of the mean colour of the preprocessing, which shows as zeros: float32 ``[count, 3, S, S]``."""
    return torch.zeros(count, 3, vqa.size, vqa.size)


class ImageCondition:
    """Assignment of an image to each question: its own, another one, or the mean colour.

    Args:
        images: those of the questions; None: every image is blank.
        vqa: the model whose preprocessing to use.
        others: path of an image to the path of the one that is shown in its place; None: each its own.
    """

    def __init__(
        self, images: ImageTable | None, vqa: MedVQA, others: Mapping[str, str] | None = None
    ) -> None:
        self._images, self._others = images, others or {}
        self._blank = blank_images(vqa, 1)[0]

    @property
    def broken(self) -> int:
        """Images that are missing or cannot be read."""
        return 0 if self._images is None else len(self._images.broken)

    def has(self, question: Question) -> bool:
        """True if there is an image to show."""
        return self._images is None or self._images.has(question)

    def name(self, question: Question) -> str:
        """Name of the image that the question is shown with."""
        if self._images is None:
            return _MEAN_COLOUR
        return self._others.get(question.image_path, question.image_path)

    def read(self, name: str) -> Tensor:
        """A name to the preprocessed image, float32 ``[3, S, S]``."""
        return self._blank if self._images is None else self._images.normalised(name)


class Views:
    """Views of a step's images: augmented anew, or tokens that the frozen image tower made of some views once.

    Such tokens are kept on disk and, as float16, in memory.

    Args:
        config: the run's ``data``.
        batch_size: of all processes together.
        seed: the run's.
        vqa: the model, on the accelerator's device.
        accelerator: its processes share the work.
    """

    def __init__(
        self, config: ViewsConfig, batch_size: int, seed: int, vqa: MedVQA, accelerator: Accelerator
    ) -> None:
        self._config, self._batch_size, self._seed = config, batch_size, seed
        self._vqa, self._accelerator, self._device = vqa, accelerator, accelerator.device
        self._mean, self._std = vqa.mean.to(self._device), vqa.std.to(self._device)
        self._augment = augmentation(config)
        self._tokens: Tensor | None = None

    def keep_tokens(self, pixels: Tensor, limit_mb: int) -> None:
        """Compute the tokens of ``data.cached_views`` views of all images, uint8 ``[N, 3, S, S]``, or read the cache.

        Raises:
            ConfigError: they would take more memory than ``limit_mb``.
            DataError: cached tokens are damaged.
            CheckpointError: ``data.cache`` cannot be written.
        """
        views = self._config.cached_views
        with torch.no_grad():
            one = self._vqa.model.image_tokens(blank_images(self._vqa, 1).to(self._device))
        needed = -(-2 * one.numel() * len(pixels) * views // 10**6)
        if needed > limit_mb:
            raise ConfigError(
                f"data.cached_views: {views} views of {len(pixels):,} images take {needed:,} MB of memory, "
                f"data.cached_mb allows {limit_mb:,}: keep fewer views, or none by --data.cached_views 0"
            )
        self._tokens = self.frozen_tokens(pixels, views)

    def frozen_tokens(self, pixels: Tensor, views: int) -> Tensor:
        """Tokens by the frozen image tower of images in so many views (0: one, not augmented), from the cache or anew.

        Returns:
            float16 ``[N, max(views, 1), P, Dv]``, on the CPU.
        """
        frozen = FrozenFeatures(self._config, self._accelerator)
        vqa = self._vqa
        return frozen.of_images(vqa.model.vision, pixels, vqa.mean, vqa.std, views, "image tokens")

    def __call__(self, images: Sequence[Tensor], step: int, offset: int) -> dict[str, Tensor]:
        """Draw a view of each image.

        Args:
            images: this process's images, once for each of their at most two views: uint8 ``[B, 3, S, S]``, or where
                tokens are kept their rows, int64 ``[B]``.
            step: counted from 1.
            offset: of the first of them in the global batch.

        Returns:
            ``images`` ``[V, B, 3, S, S]``, normalised, or ``image_tokens`` ``[V, B, P, Dv]``, float32, on the device;
            the two views of an item are different ones.
        """
        generator, count = step_generator(self._seed, step), self._batch_size
        here = slice(offset, offset + len(images[0]))
        if self._tokens is None:
            drawn = [self._augment.draw(count, generator)[here] for _ in images]
            views = [
                self._augment.apply(pixels.to(self._device, non_blocking=True).float() / 255.0, view)
                for pixels, view in zip(images, drawn, strict=True)
            ]
            return {"images": (torch.stack(views) - self._mean) / self._std}
        kept = self._config.cached_views
        chosen = [torch.randint(kept, (count,), generator=generator)]
        if len(images) == 2:
            further = torch.randint(1, kept, (count,), generator=generator)
            chosen.append((chosen[0] + further) % kept)  # never the first one again
        tokens = [self._tokens[rows, view[here]] for rows, view in zip(images, chosen, strict=True)]
        return {"image_tokens": torch.stack(tokens).to(self._device, non_blocking=True).float()}

    def not_augmented(self, pixels: Tensor) -> Tensor:
        """Normalised images, uint8 ``[B, 3, S, S]`` to float32 of the same shape, on the device."""
        return (pixels.to(self._device).float() / 255.0 - self._mean) / self._std
