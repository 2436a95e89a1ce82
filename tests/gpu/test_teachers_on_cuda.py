"""A teacher on a GPU: in float32 whatever the process allows, and the process is left as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.teachers import checkpoints as checkpoints
from training.teachers.encoder import Encoder
from training.teachers.registry import open_teacher


def pmc_clip(folder: Path) -> None:
    checkpoints.write_pmc_clip(folder, parts=True)


@pytest.mark.parametrize(
    ("kind", "write", "side"), [("hf", checkpoints.write_hf_clip, 32), ("pmc_clip", pmc_clip, 64)]
)
def test_vectors_do_not_depend_on_what_the_training_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, write: Callable[[Path], Any], side: int
) -> None:
    write(tmp_path / "model")
    on_gpu, on_cpu = (open_teacher(f"{kind}:{tmp_path / 'model'}", device) for device in ("cuda", "cpu"))
    assert isinstance(on_gpu, Encoder) and isinstance(on_cpu, Encoder)
    assert on_gpu.digest == on_cpu.digest
    pixels = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    strict = on_gpu.image(pixels)
    flags = {"allow_tf32": True, "benchmark": True, "deterministic": False}
    for name, value in flags.items():
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    with torch.autocast("cuda", torch.bfloat16):
        allowed = on_gpu.image(pixels)
    assert {name: getattr(torch.backends.cudnn, name) for name in flags} == flags
    assert torch.equal(allowed, strict)
    torch.testing.assert_close(strict.cpu(), on_cpu.image(pixels), atol=1e-4, rtol=0)
