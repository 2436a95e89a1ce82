"""The two views of a step's images: augmented anew, or two of the views that a frozen image tower has seen once.

All that is random is drawn for the whole batch from (seed, step), so that an image is seen alike whatever the number of
processes. No flips: left and right mean something. ``data.views study``: the second view is a random other training
image of the case; an image that is alone in its case gets two augmentations, as under ``augment``.
"""

from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from training.data.dataset import Batch, CaptionedImages
from training.data.feature_cache import FrozenFeatures
from training.data.transforms import augmentation, step_generator
from training.errors import DataError
from training.med_vqa.model.inputs import check_cached_memory
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.pretrain.config import PretrainConfig
from training.med_vqa.pretrain.corpus import Corpus

DEV_BATCH = 64
"""Images of the dev part that are encoded together."""


class Views(Protocol):
    """Where a step's images come from."""

    def __call__(self, batch: Batch, step: int, offset: int, partners: Tensor | None) -> dict[str, Tensor]:
        """One or two views of this process's images.

        Args:
            batch: its share.
            step: counted from 1.
            offset: of the first of them in the global batch.
            partners: places of the images that the second views show, int64 ``[B]``; None: the same.

        Returns:
            ``images`` ``[V, B, 3, S, S]`` or ``image_tokens`` ``[V, B, N, Dv]``, float32, on the device.
        """
        ...

    def dev_tokens(self) -> Tensor:
        """Image tokens of the dev part, as it is, by the tower as it is: ``[N, P, Dv]``, on the device."""
        ...


def make_views(config: PretrainConfig, vqa: MedVQA, corpus: Corpus, accelerator: Accelerator) -> Views:
    """As configured.

    Args:
        config: the run's.
        vqa: the model, on the accelerator's device.
        corpus: the images.
        accelerator: the run's.

    Raises:
        ConfigError: image tokens would take more memory than ``data.cached_mb``.
        DataError: cached tokens are damaged.
        CheckpointError: ``data.cache`` cannot be written.
    """
    make = CachedViews if config.data.cached_views else PixelViews
    return make(config, vqa, corpus, accelerator)


class Partners:
    """Which image an item's second view is taken from; all processes draw alike, as its labels are of everybody's."""

    def __init__(self, config: PretrainConfig, corpus: Corpus) -> None:
        self._members: list[NDArray[np.int64]] | None = None
        if config.data.views == "study" and config.loss.views_weight:
            order = np.argsort(corpus.cases, kind="stable")
            starts = np.flatnonzero(np.diff(corpus.cases[order])) + 1
            self._members = np.split(order.astype(np.int64), starts)
            self._cases = corpus.cases

    def __call__(self, positions: Tensor, generator: torch.Generator) -> Tensor | None:
        """Places of the images of second views: another one of the case, where there is one.

        Args:
            positions: places of the whole batch's images, int64 ``[B_global]``.
            generator: draws them; the same on every process.

        Returns:
            int64 ``[B_global]``, or None where both views are of one image.
        """
        if self._members is None:
            return None
        drawn = torch.rand(len(positions), generator=generator).tolist()
        found = []
        for position, share in zip(positions.tolist(), drawn, strict=True):
            members = self._members[int(self._cases[position])]
            others = members[members != position]
            found.append(int(others[int(share * len(others))]) if len(others) else position)
        return torch.tensor(found, dtype=torch.int64)


class PixelViews:
    """New augmentations at each step."""

    def __init__(self, config: PretrainConfig, vqa: MedVQA, corpus: Corpus, accelerator: Accelerator) -> None:
        self._config, self._vqa, self._corpus, self._device = config, vqa, corpus, accelerator.device
        self._mean, self._std = vqa.mean.to(self._device), vqa.std.to(self._device)

    def __call__(self, batch: Batch, step: int, offset: int, partners: Tensor | None) -> dict[str, Tensor]:
        """See ``Views``."""
        data, count = self._config.data, len(batch.rows)
        augment, generator = augmentation(data), step_generator(self._config.seed, step)
        first = augment.draw(data.batch_size, generator)[offset : offset + count]
        seen = [augment.apply(self._scaled(batch.pixels), first)]
        if self._config.loss.views_weight:
            second = augment.draw(data.batch_size, generator)[offset : offset + count]
            pixels = batch.pixels
            if partners is not None:
                pixels = self._corpus.images.batch(partners.numpy()).pixels
            seen.append(augment.apply(self._scaled(pixels), second))
        return {"images": torch.stack([(view - self._mean) / self._std for view in seen])}

    @torch.no_grad()
    def dev_tokens(self) -> Tensor:
        """See ``Views``."""
        dev = _dev(self._corpus)
        parts = []
        for start in range(0, len(dev), DEV_BATCH):
            pixels = dev.batch(range(start, min(start + DEV_BATCH, len(dev)))).pixels
            parts.append(self._vqa.model.image_tokens((self._scaled(pixels) - self._mean) / self._std))
        return torch.cat(parts)

    def _scaled(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device).float() / 255.0


class CachedViews:
    """Two different ones of the views whose tokens the frozen tower made once, kept on disk and in memory (float16)."""

    def __init__(self, config: PretrainConfig, vqa: MedVQA, corpus: Corpus, accelerator: Accelerator) -> None:
        self._config, self._corpus, self._device = config, corpus, accelerator.device
        data, frozen = config.data, FrozenFeatures(config.data, accelerator)
        check_cached_memory(vqa, len(corpus.images), data, accelerator.device)

        def tokens(images: CaptionedImages, views: int) -> Tensor:
            pixels = images.batch(range(len(images))).pixels
            return frozen.of_images(vqa.model.vision, pixels, vqa.mean, vqa.std, views, "image tokens")

        self._tokens = tokens(corpus.images, data.cached_views)  # (M, views, N, Dv)
        self._dev = None if corpus.dev is None else tokens(corpus.dev, 0)[:, 0]

    def __call__(self, batch: Batch, step: int, offset: int, partners: Tensor | None) -> dict[str, Tensor]:
        """See ``Views``."""
        data, generator = self._config.data, step_generator(self._config.seed, step)
        here = slice(offset, offset + len(batch.rows))
        first = torch.randint(data.cached_views, (data.batch_size,), generator=generator)
        further = torch.randint(1, data.cached_views, (data.batch_size,), generator=generator)
        second = (first + further) % data.cached_views  # never the first one again
        positions = self._corpus.positions(batch.rows)
        seen = [self._tokens[positions, first[here]]]
        if self._config.loss.views_weight:
            shown = positions if partners is None else partners
            seen.append(self._tokens[shown, second[here]])
        return {"image_tokens": torch.stack(seen).to(self._device).float()}

    def dev_tokens(self) -> Tensor:
        """See ``Views``."""
        if self._dev is None:
            raise RuntimeError("there is no dev part")
        return self._dev.to(self._device).float()


def _dev(corpus: Corpus) -> CaptionedImages:
    if corpus.dev is None:
        raise DataError("there is no dev part")
    return corpus.dev
