"""Inputs of a step's model: pixels, augmented anew at each step, or features that frozen layers gave of some views.

Both classes have a ``learner``, the model that takes the inputs, before it is prepared for several processes;
``images``, a function from start and stop to the inputs of that slice of a step's local batch, the same when asked
again; ``texts``, the inputs of its captions, ``[B_local, …]``; and ``gallery``, unit features of the dev images before
the projection, float32 ``[N, D]``, computed by all processes together and at the precision of the training.
"""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from training.clip.features import image_features
from training.clip.frozen_prefix import SplitClip, split_frozen_prefix
from training.clip.load import Clip
from training.data.dataset import Batch, CaptionedImages
from training.data.feature_cache import FrozenFeatures, content_key, module_key
from training.data.transforms import augmentation, step_generator
from training.engine.sharing import gather_shares, rows_of_process
from training.errors import ShapeError
from training.nb_clip.config import TrainConfig
from training.retrieval.features import BATCH, encode_spaces


class PixelInputs:
    """Pixels, augmented at each step; the whole model learns, as far as it is not frozen."""

    def __init__(
        self, config: TrainConfig, clip: Clip, dev: CaptionedImages | None, accelerator: Accelerator
    ) -> None:
        self.config, self.clip, self.dev, self.accelerator = config, clip, dev, accelerator
        self.learner, self.device = clip.model, accelerator.device
        self._mean, self._std = clip.mean.to(self.device), clip.std.to(self.device)

    def images(self, batch: Batch, step: int, offset: int) -> Callable[[int, int], Tensor]:
        """Augmented and normalised images, float32 ``[B, 3, S, S]``."""
        augment, pixels = augmentation(self.config.data), batch.pixels
        drawn_global = augment.draw(self.config.data.batch_size, step_generator(self.config.seed, step))
        drawn = drawn_global[offset : offset + len(pixels)]

        def slice_of(start: int, stop: int) -> Tensor:
            part = pixels[start:stop].to(self.device, non_blocking=True).float() / 255.0
            return (augment.apply(part, drawn[start:stop]) - self._mean) / self._std

        return slice_of

    def texts(self, batch: Batch) -> Tensor:
        """Tokens, int64 ``[B, L]``."""
        return batch.tokens.to(self.device, non_blocking=True)

    def gallery(self, learner: nn.Module) -> NDArray[np.float32]:
        """By the whole model."""
        if self.dev is None:
            raise ShapeError("there is no dev split to encode")
        rows = rows_of_process(len(self.dev), BATCH, self.accelerator)
        with self.accelerator.autocast():
            found = encode_spaces(
                learner, self.clip, self.dev, ("before",), device=self.device, positions=rows
            )
        return gather_shares(rows, found["before"], len(self.dev))


class FrozenInputs:
    """Features that the frozen layers give of each image's views and of each caption, computed once and kept on disk.

    Memory: images x views x size of one view's features, 2 bytes each.

    Args:
        config: the run's; ``data.cached_views`` >= 1.
        clip: the model, frozen as configured.
        images: to train on, in memory.
        dev: the dev split, in memory; each image in one view, as it is.
        accelerator: processes share the work; its device computes.

    Raises:
        ConfigError: the model cannot be split where it begins to learn.
        DataError: cached features are damaged.
        CheckpointError: ``data.cache`` cannot be written.
    """

    def __init__(
        self,
        config: TrainConfig,
        clip: Clip,
        images: CaptionedImages,
        dev: CaptionedImages | None,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.clip, self.accelerator = config, clip, accelerator
        clip.model.to(accelerator.device)
        size = int(images.empty(0).shape[-1])
        self._halves: SplitClip = split_frozen_prefix(clip.model, size)
        self.learner = self._halves.learner
        self._rows = torch.as_tensor(images.rows)
        self._frozen = FrozenFeatures(config.data, accelerator)
        self._images = self._of_images(images, config.data.cached_views)
        self._dev = None if dev is None else self._of_images(dev, 0)
        self._texts = (
            None if self._halves.text_part is None else self._of_texts(images, self._halves.text_part)
        )

    def images(self, batch: Batch, step: int, offset: int) -> Callable[[int, int], Tensor]:
        """Frozen features of one view of each image, ``[B, …]``, float32."""
        data = self.config.data
        generator = step_generator(self.config.seed, step)
        drawn = torch.randint(data.cached_views, (data.batch_size,), generator=generator)
        views, places = drawn[offset : offset + len(batch.rows)], self._places(batch)

        def slice_of(start: int, stop: int) -> Tensor:
            return self._input(self._images[places[start:stop], views[start:stop]])

        return slice_of

    def texts(self, batch: Batch) -> Tensor:
        """Frozen features ``[B, D]``, or tokens if the text tower learns."""
        if self._texts is None:
            return batch.tokens.to(self.accelerator.device, non_blocking=True)
        return self._texts[self._places(batch)].to(self.accelerator.device, non_blocking=True).float()

    @torch.no_grad()
    def gallery(self, learner: nn.Module) -> NDArray[np.float32]:
        """By the learning layers, of the dev images' frozen features."""
        if self._dev is None:
            raise ShapeError("there is no dev split to encode")
        was_training = learner.training
        learner.eval()
        rows = rows_of_process(len(self._dev), BATCH, self.accelerator)
        batches = torch.split(torch.as_tensor(rows), BATCH)
        with self.accelerator.autocast():
            parts = [image_features(learner, self._input(self._dev[batch, 0])) for batch in batches]
        learner.train(was_training)
        return gather_shares(rows, torch.cat(parts).cpu().numpy(), len(self._dev))

    def _input(self, features: Tensor) -> Tensor:
        """To the device, as float32, in the layout that convolutions want."""
        moved = features.to(self.accelerator.device, non_blocking=True).float()
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved

    def _places(self, batch: Batch) -> Tensor:
        return torch.searchsorted(self._rows, batch.rows)

    def _of_images(self, images: CaptionedImages, views: int) -> Tensor:
        """Features of each image in augmented views, or as it is (0 views), float16 ``[N, max(views, 1), …]``."""
        pixels = images.batch(range(len(images))).pixels
        return self._frozen.of_images(
            self._halves.image_part, pixels, self.clip.mean, self.clip.std, views, "frozen image layers"
        )

    def _of_texts(self, images: CaptionedImages, part: nn.Module) -> Tensor:
        tokens = images.batch(range(len(images))).tokens
        keys = [content_key(caption) for caption in tokens]

        @torch.no_grad()
        def features(position: int) -> Tensor:
            return torch.as_tensor(part(tokens[position : position + 1].to(self.accelerator.device)))[0]

        return self._frozen.filled(module_key(part), keys, features, "frozen text layers")
