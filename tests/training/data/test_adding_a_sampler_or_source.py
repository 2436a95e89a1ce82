"""How to add a sampler, or a kind of image source: one class in a file of its own, one line in the registry.

CONTRIBUTING.md says the same in words. The dummy members here are all that a new member has to write.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from kg_targets.store import TargetStore
from tests.training.engine.test_runs import world
from tests.training.tiny import arguments, losses
from training.data.samplers import SAMPLERS
from training.data.samplers.base import Sampler
from training.data.sources import SHARDED
from training.data.sources.base import ImageSource
from training.run import main as run

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.e2e


class InOrder(Sampler):
    """Images in the order of the store, in every epoch."""

    shown: list[int] = []  # noqa: RUF012 - a notebook of the test

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        for step in range(self.steps):
            batch = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            self.shown.extend(batch.tolist())
            yield batch


class ArraySource(ImageSource):
    """One NumPy file with all images, uint8 [N, H, W], in the order of the store."""

    def __init__(self, root: Path, store: TargetStore) -> None:
        super().__init__(root, store)
        self.pixels = np.load(root, allow_pickle=False)

    def present(self) -> NDArray[np.bool_]:
        return np.arange(len(self.store)) < len(self.pixels)

    def name(self, row: int) -> str:
        return f"{self.root}: {row}"

    def encoded(self, row: int) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(self.pixels[row]).save(stream, "PNG")
        return stream.getvalue()

    def digest(self) -> str:
        return str(self.pixels.sum())


def test_a_sampler_is_one_class_and_one_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "in_order", InOrder)
    InOrder.shown.clear()

    assert run(arguments(world, tmp_path / "run", "--data.sampler=in_order")) == 0

    assert InOrder.shown == [*range(16)] * 2  # two epochs of sixteen images
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["sampler"] == "in_order"


def test_a_wrong_sampler_is_told_all_that_are_registered(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SAMPLERS, "in_order", InOrder)

    assert run(arguments(world, tmp_path / "run", "--data.sampler=none_such")) == 2

    assert "in_order" in capsys.readouterr().err


def test_an_image_source_is_one_class_and_one_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images from another kind of file give the same losses."""
    monkeypatch.setitem(SHARDED, ".npy", ArraySource)
    pictures = [np.asarray(Image.open(world / "data" / "images" / f"train{row}.png")) for row in range(16)]
    np.save(tmp_path / "images.npy", np.stack(pictures))
    alone = ("--data.dev_store=null",)

    assert run(arguments(world, tmp_path / "files", *alone)) == 0
    assert (
        run(arguments(world, tmp_path / "array", *alone, f"--data.data_root={tmp_path / 'images.npy'}")) == 0
    )

    assert losses(tmp_path / "array") == losses(tmp_path / "files")
