"""Teachers that are models: images are decoded in threads ahead of the model, captions are encoded once each.

All is computed in float32, the same in every run (``exact``). What the vectors follow from is one sha256
(``digest_of``): weights do not say how many heads attend, or where it pools.
"""

import hashlib
import json
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from training.data.decode import BrokenImage
from training.errors import CheckpointError, DataError
from training.teachers.base import (
    Advance,
    FloatArray,
    ImageTexts,
    ImageVectors,
    IntArray,
    Teacher,
    unit_vectors,
)

BATCH = 64
"""Images or captions that the model sees at once. Fixed: another size may change the last bits of a vector."""
_AHEAD = 2  # batches that are decoded while the model works
_PROBE = ["No acute fracture; 3.2 cm mass (T2), β-lactam."]


class Encoder(Teacher):
    """A model with an image tower and a text tower.

    Args:
        name: see ``Teacher``.
        model: the towers, in eval mode and on ``device`` from now on; holds ``logit_scale`` and has ``encode_image``
            and ``encode_text``, unless a subclass has its own.
        preprocessing: what ``prepare`` and the tokenizer do, as JSON without paths.
        architecture: what else vectors follow from, and the weights do not say: the model's configuration; as JSON
            without paths.
        tokenizer: of captions; None for a subclass with ``tokens`` of its own.
        device: where the model runs.
        scale: exp of the logit scale; None: the model's.

    Raises:
        CheckpointError: the scale is not a positive number.
    """

    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    """Entries of the tokenizer's output that the text tower takes."""

    def __init__(
        self,
        name: str,
        model: Any,
        preprocessing: dict[str, Any],
        architecture: list[Any],
        tokenizer: Any,
        device: torch.device,
        scale: float | None = None,
    ) -> None:
        self.scale = float(model.logit_scale.detach().exp()) if scale is None else scale
        if not 0.0 < self.scale < float("inf"):
            raise CheckpointError(
                f"teacher {name}: its logit scale gives {self.scale}: the weights are damaged"
            )
        self.name, self.preprocessing, self.tokenizer = name, preprocessing, tokenizer
        self.model, self.device = model.eval().requires_grad_(False).to(device), device
        self.dim = int(self.text(_PROBE).shape[1])
        probe = {f"probe.{key}": value for key, value in self.tokens(_PROBE).items()}
        words = [] if tokenizer is None else [vocabulary(tokenizer)]
        stated = [self.kind, preprocessing, [*architecture, *words]]
        self.digest = digest_of(stated, {**self.model.state_dict(), **probe})

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """One image, mode L or RGB, as the image tower takes it: float32 ``[3, S, S]``."""

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Captions as the text tower takes them, padded and truncated; the same for a caption in any batch."""
        length = self.preprocessing["context_length"]
        found = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return {key: found[key] for key in self.inputs}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Float ``[B, 3, S, S]`` to ``[B, D]``, projected, of any length."""
        features: Tensor = self.model.encode_image(pixels)
        return features

    def encode_text(self, tokens: dict[str, Tensor]) -> Tensor:
        """Output of ``tokens`` to ``[B, D]``, projected, of any length."""
        features: Tensor = self.model.encode_text(**tokens)
        return features

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

    def images(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> ImageVectors:
        """See ``Teacher``; unreadable images are listed in ``broken``."""
        factors = np.zeros((len(rows), self.dim), dtype=np.float32)
        broken: dict[int, str] = {}
        for start, found in self._prepared(pairs, rows):
            good = {at: image for at, image in enumerate(found, start) if isinstance(image, Tensor)}
            broken |= {
                int(rows[at]): image for at, image in enumerate(found, start) if isinstance(image, str)
            }
            if good:
                places = list(good)
                vectors = self.image(torch.stack(list(good.values()))).cpu().numpy()
                names = [pairs.image_ids[row] for row in rows[places]]
                factors[places] = unit_vectors(vectors, "image", names, self.name)
            if advance is not None:
                advance(len(found))
        return ImageVectors(factors, broken)

    def texts(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> FloatArray:
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

    def _prepared(self, pairs: ImageTexts, rows: IntArray) -> Iterator[tuple[int, list[Tensor | str]]]:
        """Batch by batch, from which place on: images as the tower takes them, or the problem with them."""
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
            waiting: deque[tuple[int, Iterator[Tensor | str]]] = deque()
            for start in range(0, len(rows), BATCH):
                waiting.append((start, pool.map(read, rows[start : start + BATCH].tolist())))
                if len(waiting) > _AHEAD:
                    first, images = waiting.popleft()
                    yield first, list(images)
            for first, images in waiting:
                yield first, list(images)
        finally:
            pool.shutdown(cancel_futures=True)


_VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
"""Entries about a file and not the model: where it lay, who wrote it, how it was stored; teachers run in float32."""


def digest_of(stated: Any, tensors: Mapping[str, Tensor]) -> str:
    """sha256 of JSON and tensors, whatever their order.

    Args:
        stated: JSON.
        tensors: by name, of any dtype, shape and device.
    """
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        content = value.detach().cpu().contiguous()
        digest.update(f"{name} {content.dtype} {list(content.shape)}\n".encode())
        digest.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def configuration(config: Any) -> Any:
    """All fields of a transformers configuration, those that its file leaves to the library too, as JSON.

    Args:
        config: a ``PretrainedConfig``.
    """

    def kept(entries: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entries.items() if name not in _VOLATILE}

    return json.loads(config.to_json_string(use_diff=False), object_hook=kept)


def vocabulary(tokenizer: Any) -> Any:
    """All that a tokenizer makes tokens by, but for the length that it is asked for, as JSON.

    Args:
        tokenizer: one of transformers, or one of open_clip, which holds such a one or CLIP's own.
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    sides = [getattr(inner, f"{what}_side", None) for what in ("padding", "truncation")]
    if hasattr(inner, "backend_tokenizer"):
        rules = json.loads(inner.backend_tokenizer.to_str())
        # Both are as the last call asked.
        return [sides, {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}]
    if hasattr(inner, "bpe_ranks"):
        return [sides, inner.encoder, list(inner.bpe_ranks)]
    return [sides, inner.get_vocab(), inner.all_special_tokens]


_AXES = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """For this thread alone: no autocast, and on a GPU ``ExactConvolutions``."""
    with (
        torch.autocast(device.type, enabled=False),
        ExactConvolutions() if device.type == "cuda" else nullcontext(),
    ):
        yield


class ExactConvolutions(TorchFunctionMode):
    """Convolutions in full float32 by algorithms that give the same bits every time; modes are a thread's own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        axes = _AXES.get(func)
        return func(*args, **(kwargs or {})) if axes is None else _convolve(axes, *args, **(kwargs or {}))


def _convolve(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv1d``, ``conv2d`` or ``conv3d`` of a batch ``[B, C, …]``."""
    dilation = _each(axes, dilation)
    if padding == "same":
        around = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        # F.pad begins at the last axis; of an odd number the larger half comes last.
        input = F.pad(input, [half for total in around[::-1] for half in (total // 2, total - total // 2)])
    result: Tensor = torch.ops.aten._convolution(
        input, weight, bias, _each(axes, stride), _each(axes, 0 if isinstance(padding, str) else padding), dilation,
        False, [0] * axes, groups, benchmark=False, deterministic=True, cudnn_enabled=True, allow_tf32=False,
    )  # fmt: skip
    return result


def _each(axes: int, value: int | Sequence[int]) -> list[int]:
    """One number for each axis; a single one stands for all."""
    given = [value] if isinstance(value, int) else list(value)
    return given * axes if len(given) == 1 else given
