"""Unit features of a store's images and captions by a trained model, encoded batch by batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from kg_targets.store import TargetStore
from training.clip.features import image_features, image_features_both, text_features
from training.clip.load import Clip
from training.data.dataset import CaptionedImages
from training.retrieval.config import AFTER, BEFORE
from training.retrieval.metrics import caption_codes

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

BATCH = 128
"""Images or captions encoded at a time."""


@dataclass(frozen=True)
class RetrievalSet:
    """The images that are queries and gallery at once, with what is known about them; N readable images."""

    store: TargetStore
    rows: IntArray
    """Store row of each image."""

    @cached_property
    def cases(self) -> IntArray:
        """Case code of each image."""
        return self.store.cases[self.rows]

    def label(self, name: str) -> list[str]:
        """Label of each image, empty where missing."""
        values = self.store.label(name)
        return [values[row] for row in self.rows]

    def excluded(self, exclusion: str) -> IntArray:
        """Groups whose other members a query does not find: cases, or for ``image`` every image alone."""
        return self.cases if exclusion == "case" else np.arange(len(self.rows))

    @cached_property
    def cuis(self) -> sparse.csr_array:
        """float32 ``[N, C]``: 1 where the caption asserts the concept."""
        return self.store.cui_matrix()[self.rows]

    @cached_property
    def captions(self) -> list[str]:
        """Caption of each image."""
        captions = self.store.captions
        return [captions[row] for row in self.rows]

    @cached_property
    def caption_codes(self) -> IntArray:
        """int64 ``[N]``; equal captions have equal codes."""
        return caption_codes(self.captions)


@dataclass(frozen=True)
class Features:
    """Features of a retrieval set by one trained model; unit vectors, float32."""

    images: Mapping[str, FloatArray]
    """``before`` and ``after`` the projection, ``[N, D]`` each, as far as encoded."""
    texts: FloatArray | None = None
    """Captions, ``[N, D]``, in the space of ``images["after"]``."""
    classes: Mapping[str, FloatArray] = field(default_factory=dict)
    """Zero-shot label to its classes' prompts, ``[C, D]``, in the same space."""


@torch.no_grad()
def encode_spaces(
    model: nn.Module,
    clip: Clip,
    images: CaptionedImages,
    spaces: Sequence[str],
    *,
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
    positions: IntArray | None = None,
) -> dict[str, FloatArray]:
    """Features ``before`` and ``after`` the projection as asked, float32 ``[N, D]`` each; images are read once.

    ``positions`` chooses images of ``images``; None: all of them.
    """
    parts: dict[str, list[FloatArray]] = {space: [] for space in spaces}
    asked = np.arange(len(images)) if positions is None else positions
    mean, std = clip.mean.to(device), clip.std.to(device)
    with _evaluating(model):
        for start in range(0, len(asked), batch_size):
            pixels = images.batch(asked[start : start + batch_size]).pixels
            inputs = (pixels.to(device, non_blocking=True).float() / 255.0 - mean) / std
            if len(parts) > 1:
                features = dict(zip((BEFORE, AFTER), image_features_both(model, inputs), strict=True))
            else:
                features = {s: image_features(model, inputs, projected=s == AFTER) for s in parts}
            for space, found in parts.items():
                found.append(features[space].cpu().numpy())
    none = np.zeros((0, 0), dtype=np.float32)
    return {space: np.concatenate(found) if found else none for space, found in parts.items()}


@torch.no_grad()
def encode_texts(
    model: nn.Module,
    tokenizer: Callable[[list[str]], Tensor],
    texts: Sequence[str],
    *,
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
) -> FloatArray:
    """Unit features of texts in the projected space, float32 ``[N, D]``.

    Each distinct text is encoded once: equal texts get equal features, whatever batch they would fall in.
    """
    distinct = list(dict.fromkeys(texts))
    parts = []
    with _evaluating(model):
        for start in range(0, len(distinct), batch_size):
            tokens = tokenizer(distinct[start : start + batch_size]).to(device)
            parts.append(text_features(model, tokens).cpu().numpy())
    place = {text: row for row, text in enumerate(distinct)}
    return np.asarray(np.concatenate(parts)[[place[text] for text in texts]])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
