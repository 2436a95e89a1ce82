"""A teacher computes in float32 whatever a training does beside it, and changes nothing for the training."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.teachers import checkpoints as checkpoints
from tests.training.teachers.fakes import FakeEncoder
from training.teachers import encoder as exactly
from training.teachers.encoder import Encoder, ExactConvolutions, exact
from training.teachers.registry import open_teacher


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The axes of each convolution that was told how to compute."""
    told: list[int] = []
    plain = exactly._convolve
    monkeypatch.setattr(
        exactly, "_convolve", lambda *given, **named: told.append(given[0]) or plain(*given, **named)
    )
    return told


@pytest.mark.parametrize("part", ["image", "text"])
def test_a_working_teacher_leaves_the_process_flags_alone(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    flags = {"allow_tf32": True, "benchmark": True, "deterministic": False}
    for name, value in flags.items():
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    teacher, found = FakeEncoder(1, "fake"), []
    plain = getattr(teacher, f"encode_{part}")

    def looking(given: Any) -> Any:
        found.append({name: getattr(torch.backends.cudnn, name) for name in flags})
        return plain(given)

    monkeypatch.setattr(teacher, f"encode_{part}", looking)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = teacher.image(torch.rand(2, 3, 8, 8)) if part == "image" else teacher.text(["a"])
    assert found == [flags] and vectors.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 3},
        {"padding": "valid", "bias": None},
        {"stride": (2,), "groups": 2},
    ],
)
def test_a_convolution_is_torchs(convolved: list[int], axes: int, given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    function = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    sizes = (4, 3, 2)[:axes]
    weight = torch.randn(6, 4 // given.get("groups", 1), *sizes)
    called = {"bias": torch.randn(6), **given}
    image = torch.randn(2, 4, *(11, 9, 8)[:axes])
    expected = function(image, weight, **called)
    with ExactConvolutions():
        torch.testing.assert_close(function(image, weight, **called), expected)
    assert convolved == [axes]


def test_the_training_in_another_thread_is_not_told(convolved: list[int]) -> None:
    layer, image = nn.Conv2d(3, 4, 2), torch.randn(1, 3, 5, 5)
    with ThreadPoolExecutor(max_workers=1) as thread, exact(torch.device("cuda")):
        thread.submit(layer, image).result()
        assert not convolved
        layer(image)
        assert convolved == [2]
    with exact(torch.device("cpu")):
        layer(image)
    assert convolved == [2]


def resnet(folder: Path) -> None:
    checkpoints.write_medclip(folder, swin=False)


def pmc_clip(folder: Path) -> None:
    checkpoints.write_pmc_clip(folder, parts=True)


@pytest.mark.parametrize(
    ("kind", "write", "side"),
    [
        ("open_clip", checkpoints.write_open_clip, 32),
        ("hf", checkpoints.write_hf_clip, 32),
        ("medclip", checkpoints.write_medclip, 224),
        ("medclip", resnet, 224),
        ("pmc_clip", pmc_clip, 64),
    ],
)
def test_every_convolution_of_a_tower_is_reached(
    tmp_path: Path, convolved: list[int], kind: str, write: Callable[[Path], Any], side: int
) -> None:
    folder = tmp_path / "model"
    made = write(folder)
    teacher = open_teacher(f"{kind}:{made if isinstance(made, Path) else folder}", "cpu")
    assert isinstance(teacher, Encoder)
    pixels = torch.rand(1, 3, side, side)
    expected = teacher.image(pixels)
    with ExactConvolutions():
        torch.testing.assert_close(teacher.image(pixels), expected)
    layers = [module for module in teacher.model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolved) == len(layers) > 0
