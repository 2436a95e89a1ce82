"""Frozen features on disk, one file per image or caption, found again by what they were computed from.

A file's name is the content's sha256 and its folder's name the sha256 of everything else that decides the features
(weights, size, augmentation, kind of device, versions). So folds of one data set, and all runs with the same frozen
layers, share the files. What is missing is computed, always on one CPU thread, since rounding depends on their number;
processes that compute the same thing at the same time write the same file, by atomic rename. A file is a NumPy array
with a checksum behind it.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from kg_targets.store.digest import shuffle_key
from training.data.config import ViewsConfig
from training.data.transforms import augmentation
from training.errors import DataError
from training.folders import writing

Compute = Callable[[int], Tensor]
_PACKAGES = ("torch", "timm", "open_clip_torch", "transformers")
"""Packages whose versions decide rounding."""
_CHECKSUM = 16  # bytes


def content_key(content: Tensor) -> str:
    """sha256 of a tensor's shape, type and bytes."""
    digest = hashlib.sha256(f"{list(content.shape)} {content.dtype}\n".encode())
    digest.update(np.ascontiguousarray(content.numpy()).tobytes())
    return digest.hexdigest()


def module_key(module: nn.Module, **use: Any) -> str:
    """sha256 of a module's weights, the kind of device they are on, versions, and plain use about its use."""
    kind = next((value.device.type for value in module.parameters()), "cpu")
    known = {**use, "device": kind, "checksum": _CHECKSUM, **{name: version(name) for name in _PACKAGES}}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name, value in module.state_dict().items():
        digest.update(f"\n{name} {content_key(value.detach().cpu().contiguous())}".encode())
    return digest.hexdigest()


class FeatureCache:
    """Features of one kind.

    Args:
        folder: of the cache.
        key: of what computes them, from ``module_key``.
        option: what the folder is called where the user sets it, for messages.
    """

    def __init__(self, folder: Path, key: str, option: str = "data.cache") -> None:
        self.folder, self._option = folder / key[:32], f"--{option}"

    def complete(self, keys: Sequence[str], compute: Compute, what: str, share: slice = slice(None)) -> None:
        """Compute and write what is missing.

        Args:
            keys: of the contents, in any order.
            compute: position in ``keys`` to features, stored as float16.
            what: they are, for the line that shows progress on a terminal.
            share: of the contents, for a process among several.

        Raises:
            DataError: features are not finite as float16.
            CheckpointError: the folder cannot be written.
        """
        place = {key: position for position, key in enumerate(keys)}
        # A share of all, not of the missing ones: which those are, others are changing at this moment.
        missing = [key for key in sorted(place)[share] if not self._path(key).is_file()]
        with _one_thread():
            for key in tqdm(missing, desc=what, unit="", disable=not sys.stderr.isatty(), leave=False):
                values = compute(place[key]).detach().to(torch.float16).cpu().numpy()
                if not np.isfinite(values).all():
                    raise DataError(f"{what}: the frozen layers give values that float16 cannot hold")
                self._write(self._path(key), values)

    def load(self, keys: Sequence[str]) -> Tensor:
        """Features in the order of ``keys``, float16 ``[N, …]``.

        Raises:
            DataError: a file is missing or damaged.
        """
        first = self._read(keys[0])
        out = np.empty((len(keys), *first.shape), dtype=np.float16)
        for position, key in enumerate(keys):
            values = self._read(key)
            if values.shape != first.shape:
                raise self._damaged(self._path(key), "another shape than the others")
            out[position] = values
        return torch.from_numpy(out)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _read(self, key: str) -> NDArray[np.float16]:
        path = self._path(key)
        try:
            content = path.read_bytes()
            values = np.load(io.BytesIO(content), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(path, " ".join(str(error).split())) from error
        if _checksum(content[:-_CHECKSUM]) != content[-_CHECKSUM:]:
            raise self._damaged(path, "its checksum is wrong")
        return np.asarray(values, dtype=np.float16)

    def _damaged(self, path: Path, problem: str) -> DataError:
        return DataError(f"{path} cannot be used ({problem}): remove it, it is only a cache ({self._option})")

    def _write(self, path: Path, values: NDArray[np.float16]) -> None:
        with writing(self.folder, self._option):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.stem[:16]}.{os.getpid()}.part")
            stream = io.BytesIO()
            np.save(stream, values, allow_pickle=False)
            try:
                part.write_bytes(stream.getvalue() + _checksum(stream.getvalue()))
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_CHECKSUM]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FrozenFeatures:
    """Features by frozen layers, computed once, shared out to the processes and kept on disk.

    Args:
        config: augmentation and the cache's folder.
        accelerator: its device computes, its processes share the work.
    """

    def __init__(self, config: ViewsConfig, accelerator: Accelerator) -> None:
        self._config, self._accelerator = config, accelerator

    def of_images(
        self, part: nn.Module, pixels: Tensor, mean: Tensor, std: Tensor, views: int, what: str
    ) -> Tensor:
        """Features of each image in augmented views, or as it is.

        Args:
            part: normalised images ``[V, 3, S, S]`` to features ``[V, …]``, on the accelerator's device.
            pixels: uint8 ``[N, 3, S, S]``.
            mean: of the normalisation, ``[3, 1, 1]``.
            std: of the normalisation, ``[3, 1, 1]``.
            views: of each image; 0: one, not augmented.
            what: they are, for the line that shows progress.

        Returns:
            float16 ``[N, max(views, 1), …]``, on the CPU.
        """
        augment, keys = augmentation(self._config), [content_key(image) for image in pixels]
        use = {"views": views, "augmentation": asdict(augment) if views else {}}
        use |= {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()}

        @torch.no_grad()
        def features(position: int) -> Tensor:
            image = pixels[position : position + 1].float() / 255.0
            if views:
                seed = int.from_bytes(shuffle_key(keys[position])[:7])
                image = augment(image.expand(views, -1, -1, -1), torch.Generator().manual_seed(seed))
            inputs = ((image - mean) / std).to(self._accelerator.device)
            return torch.as_tensor(part(inputs.contiguous(memory_format=torch.channels_last)))

        return self.filled(module_key(part, **use), keys, features, what)

    def filled(self, key: str, keys: list[str], compute: Callable[[int], Tensor], what: str) -> Tensor:
        """Features of ``keys`` from the ``FeatureCache``; those that are missing are computed."""
        cache = FeatureCache(Path(self._config.cache), key)
        processes = self._accelerator.num_processes
        cache.complete(keys, compute, what, slice(self._accelerator.process_index, None, processes))
        self._accelerator.wait_for_everyone()
        return cache.load(keys)
