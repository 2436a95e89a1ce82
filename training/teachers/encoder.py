"""Teachers that are models: images are decoded in threads ahead of the model, captions are encoded once each."""

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from training.data.decode import BrokenImage
from training.errors import CheckpointError, DataError
from training.teachers.base import Advance, Encoded, FloatArray, IntArray, Pairs, Teacher, unit_vectors
from training.teachers.digest import digest_of
from training.teachers.exact import exact

BATCH = 64
"""Images or captions that the model sees at once. Fixed: another size may change the last bits of a vector."""
_AHEAD = 2  # batches that are decoded while the model works
_PROBE = ["No acute fracture; 3.2 cm mass (T2), β-lactam."]


class Encoder(Teacher):
    """A model with an image tower and a text tower.

    Args:
        name: see ``Teacher``.
        kind: see ``Teacher``.
        model: the towers, in eval mode and on ``device`` from now on.
        scale: exp of the logit scale.
        preprocessing: what ``prepare`` and the tokenizer do, as JSON without paths.
        architecture: what else vectors follow from, and the weights do not say: the model's configuration, the
            tokenizer's words; as JSON without paths.
        device: where the model runs.

    Raises:
        CheckpointError: the scale is not a positive number.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        model: nn.Module,
        scale: float,
        preprocessing: dict[str, Any],
        architecture: Any,
        device: torch.device,
    ) -> None:
        if not 0.0 < scale < float("inf"):
            raise CheckpointError(f"teacher {name}: its logit scale gives {scale}: the weights are damaged")
        self.name, self.kind, self.scale, self.preprocessing = name, kind, scale, preprocessing
        self.model, self.device = model.eval().requires_grad_(False).to(device), device
        self.dim = int(self.text(_PROBE).shape[1])
        probe = {f"probe.{key}": value for key, value in self.tokens(_PROBE).items()}
        self.digest = digest_of(
            [self.kind, self.preprocessing, architecture], {**self.model.state_dict(), **probe}
        )

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """One image, mode L or RGB, as the image tower takes it: float32 ``[3, S, S]``."""

    @abstractmethod
    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Captions as the text tower takes them; the same for a caption in any batch."""

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Float ``[B, 3, S, S]`` to ``[B, D]``, of any length."""

    @abstractmethod
    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """What ``tokens`` gave to ``[B, D]``, of any length."""

    @torch.no_grad()
    def image(self, pixels: Tensor) -> Tensor:
        """Unit vectors of prepared images, float ``[B, 3, S, S]`` to float32 ``[B, D]`` on the model's device."""
        with exact(self.device):
            return nn.functional.normalize(self.encode_image(pixels.to(self.device)).float(), dim=-1)

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of captions, float32 ``[B, D]`` on the model's device."""
        tokens = {key: value.to(self.device) for key, value in self.tokens(texts).items()}
        with exact(self.device):
            return nn.functional.normalize(self.encode_text(tokens).float(), dim=-1)

    def images(self, pairs: Pairs, rows: IntArray, advance: Advance | None = None) -> Encoded:
        """See ``Teacher``; an image that cannot be read is told in ``broken``."""
        factors = np.zeros((len(rows), self.dim), dtype=np.float32)
        broken: dict[int, str] = {}
        for start, found in self._prepared(pairs, rows):
            good = [at for at, image in enumerate(found) if isinstance(image, Tensor)]
            for at, image in enumerate(found):
                if isinstance(image, str):
                    broken[int(rows[start + at])] = image
            if good:
                vectors = self.image(torch.stack([image for image in found if isinstance(image, Tensor)]))
                places = np.array(good) + start
                names = [pairs.image_ids[row] for row in rows[places]]
                factors[places] = unit_vectors(vectors.cpu().numpy(), "image", names, self.name)
            if advance is not None:
                advance(len(found))
        return Encoded(factors, broken)

    def texts(self, pairs: Pairs, rows: IntArray, advance: Advance | None = None) -> FloatArray:
        """See ``Teacher``; each distinct caption is encoded once."""
        first: dict[str, int] = {}
        for row in rows.tolist():
            first.setdefault(pairs.captions[row], row)
        distinct = list(first)
        parts = [np.zeros((0, self.dim), dtype=np.float32)]
        for start in range(0, len(distinct), BATCH):
            captions = distinct[start : start + BATCH]
            names = [pairs.image_ids[first[caption]] for caption in captions]
            parts.append(unit_vectors(self.text(captions).cpu().numpy(), "the caption", names, self.name))
            if advance is not None:
                advance(len(captions))
        place = {caption: at for at, caption in enumerate(distinct)}
        return np.concatenate(parts)[[place[pairs.captions[row]] for row in rows.tolist()]]

    def _prepared(self, pairs: Pairs, rows: IntArray) -> Iterator[tuple[int, list[Tensor | str]]]:
        """Batch by batch, from which place on: images as the tower takes them, or what is wrong with them."""
        source = pairs.source
        if source is None:
            raise DataError(f"teacher {self.name} reads images: say where they are")

        def read(row: int) -> Tensor | str:
            try:
                return self.prepare(source.read(row))
            except BrokenImage as error:
                return str(error)

        pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="images")
        try:
            waiting: deque[tuple[int, list[Future[Tensor | str]]]] = deque()
            for start in range(0, len(rows), BATCH):
                waiting.append((start, [pool.submit(read, int(row)) for row in rows[start : start + BATCH]]))
                if len(waiting) > _AHEAD:
                    yield _results(waiting.popleft())
            while waiting:
                yield _results(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _results(batch: tuple[int, list[Future[Tensor | str]]]) -> tuple[int, list[Tensor | str]]:
    return batch[0], [future.result() for future in batch[1]]
