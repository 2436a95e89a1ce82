"""Frozen features on disk, one file per image or caption, found again by what they were computed from.

A file's name is the content's sha256 and its folder's name the sha256 of everything else that decides the features
(weights, size, augmentation). So folds of one data set, and all runs with the same frozen layers, share the files. What
is missing is computed; processes that compute the same thing at the same time write the same file, by atomic rename.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from training.errors import DataError
from training.folders import writing

Compute = Callable[[int], Tensor]


def content_key(content: Tensor) -> str:
    """sha256 of a tensor's shape, type and bytes."""
    digest = hashlib.sha256(f"{list(content.shape)} {content.dtype}\n".encode())
    digest.update(np.ascontiguousarray(content.numpy()).tobytes())
    return digest.hexdigest()


def module_key(module: nn.Module, **facts: Any) -> str:
    """sha256 of a module's weights and of plain facts about what it is used for; torch's version decides rounding."""
    digest = hashlib.sha256(json.dumps({**facts, "torch": torch.__version__}, sort_keys=True).encode())
    for name, value in module.state_dict().items():
        digest.update(f"\n{name} {content_key(value.detach().cpu().contiguous())}".encode())
    return digest.hexdigest()


class Bank:
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
                raise DataError(f"{self._path(key)} is damaged: remove {self.folder}, it is only a cache")
            out[position] = values
        return torch.from_numpy(out)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _read(self, key: str) -> NDArray[np.float16]:
        path = self._path(key)
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} cannot be read ({error}): remove {self.folder}, it is only a cache"
            ) from error
        return np.asarray(values, dtype=np.float16)

    def _write(self, path: Path, values: NDArray[np.float16]) -> None:
        with writing(self.folder, self._option):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.stem[:16]}.{os.getpid()}.part")
            with part.open("wb") as stream:
                np.save(stream, values, allow_pickle=False)
            part.replace(path)
