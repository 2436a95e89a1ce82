"""How to add a kind of teacher: one class in a file of its own, one line in the registry, and it makes stores.

CONTRIBUTING.md says the same in words. The dummy member here is all that a new member has to write.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from kg_targets.store import TargetStore
from pipelines.cli import main
from tests.builds import CAPTIONS, write_split
from training.teachers.base import Advance, FloatArray, ImageTexts, ImageVectors, IntArray, Teacher
from training.teachers.registry import TEACHERS


class LengthTeacher(Teacher):
    """Captions of about one length are alike; an image is like its caption."""

    kind = "length"
    digest = "length-1"
    dim = 2
    scale = 10.0
    reads_images = False

    def __init__(self, source: str, name: str, device: torch.device) -> None:
        self.name, self.preprocessing = name, {}

    def images(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> ImageVectors:
        return ImageVectors(self.texts(pairs, rows), {})

    def texts(self, pairs: ImageTexts, rows: IntArray, advance: Advance | None = None) -> FloatArray:
        angle = np.array([len(pairs.captions[row]) for row in rows]) / 100
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_a_teacher_is_one_class_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEACHERS, "length", f"{__name__}:LengthTeacher")
    write_split(tmp_path / "data", "train", CAPTIONS)
    place = ["--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]

    assert (
        main(["build", "demo", "--split", "train", "--scorer", "teacher", "--teacher", "length:1", *place])
        == 0
    )

    store = TargetStore.open(tmp_path / "out" / "train")
    assert store.manifest["teacher"]["kind"] == "length"
    angle = np.array([len(caption) for caption in CAPTIONS]) / 100
    expected = 10.0 * np.cos(angle[:, None] - angle[None, :])
    np.testing.assert_allclose(store.block(range(len(CAPTIONS)), kind="image_text"), expected, atol=1e-5)
