"""Stand-ins for a store and a model, and drawn images, for tests of reading and loading."""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch


@dataclass
class PlainStore:
    """As much of a target store as images need."""

    image_ids: list[str]
    image_paths: list[str]
    group_ids: list[str] = field(default_factory=list)
    path: Path = Path("store")

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def captions(self) -> list[str]:
        return [f"caption {name}" for name in self.image_ids]


def plain_store(count: int, pattern: str = "images/case{row:03d}.png") -> Any:
    """Rows img000, img001, … at the paths of ``pattern``."""
    names = [f"img{row:03d}" for row in range(count)]
    return PlainStore(names, [pattern.format(row=row, id=names[row]) for row in range(count)])


def plain_clip(size: int = 8) -> Any:
    """A model's preprocessing and a tokenizer that tells the captions apart."""
    import torch
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    mean, std = torch.full((3, 1, 1), 0.45), torch.full((3, 1, 1), 0.26)
    steps = [Resize(size), CenterCrop(size), lambda image: image.convert("RGB"), ToTensor()]

    def tokenizer(captions: Sequence[str], context_length: int = 2) -> "torch.Tensor":
        numbers = [int(caption[-3:]) if caption[-3:].isdigit() else 7 for caption in captions]
        return torch.tensor([[number, *[7] * (context_length - 1)] for number in numbers])

    return SimpleNamespace(
        preprocess=Compose([*steps, Normalize([0.45] * 3, [0.26] * 3)]),
        mean=mean,
        std=std,
        tokenizer=tokenizer,
    )


def png(value: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """A grey image of one value."""
    return encoded(Image.new("L", size, value))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as a file's content."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_images(root: Path, store: Any, broken: Sequence[int] = ()) -> Path:
    """One image file a row below ``root``, grey with the row's number; those of ``broken`` are cut off."""
    for row, path in enumerate(store.image_paths):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = png(row)
        target.write_bytes(data[: len(data) // 2] if row in broken else data)
    return root


def first_pixels(pixels: "torch.Tensor") -> list[int]:
    """The value of each image's first pixel, which ``write_images`` made the row."""
    return [int(value) for value in np.asarray(pixels)[:, 0, 0, 0]]


def write_tar(path: Path, names: Sequence[str], data: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in zip(names, data, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
