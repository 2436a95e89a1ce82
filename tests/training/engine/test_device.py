"""How a run uses its device: the launcher's precision, torch's switches, and the first line that tells of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch.backends import cuda, cudnn

from tests.training.data.test_data import configure
from tests.training.tiny import arguments, write_world
from training.clip.config import LAUNCHER_PRECISION, ModelConfig
from training.engine.device import describe_device, set_up_device
from training.errors import ConfigError
from training.med_vqa.model.config import VQAModelConfig
from training.run import main as run


@pytest.fixture
def switches() -> Iterator[None]:
    """Torch's switches of the process, as they were afterwards."""
    flags = [
        (cuda.matmul, "allow_tf32"),
        (cudnn, "allow_tf32"),
        (cudnn, "benchmark"),
        (cudnn, "deterministic"),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name in flags]
    kernels = cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    same_bits = torch.are_deterministic_algorithms_enabled()
    yield
    for owner, name, value in before:
        setattr(owner, name, value)
    cuda.enable_mem_efficient_sdp(kernels[0])
    cuda.enable_cudnn_sdp(kernels[1])
    torch.use_deterministic_algorithms(same_bits, warn_only=True)


@pytest.mark.parametrize(
    ("told", "expected"), [(None, "fp32"), ("no", "fp32"), ("bf16", "bf16"), ("fp16", "fp16")]
)
def test_the_launchers_precision_counts_unless_the_config_says_otherwise(
    told: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAUNCHER_PRECISION, raising=False)
    if told is not None:
        monkeypatch.setenv(LAUNCHER_PRECISION, told)
    assert ModelConfig().precision == VQAModelConfig().precision == expected
    assert configure().model.precision == expected
    assert configure("--model.precision=fp32").model.precision == "fp32"


def test_a_precision_of_the_launcher_that_no_run_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHER_PRECISION, "fp8")
    with pytest.raises(ConfigError, match="--mixed_precision fp8 is not supported"):
        ModelConfig()


@pytest.mark.e2e
def test_the_first_line_tells_what_a_run_runs_on_and_the_config_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LAUNCHER_PRECISION, "bf16")
    world = write_world(tmp_path)
    assert run(arguments(world, tmp_path / "run", "--optim.max_steps=1", "--threads=1")) == 0
    first = capsys.readouterr().err.splitlines()[0]
    told = "device: cpu, 1 process of 1 CPU threads, bf16, attention SDPA (flash, math), compile off"
    assert first == told
    assert "precision: bf16" in (tmp_path / "run" / "config.yaml").read_text()


def test_on_a_gpu_the_fast_kernels_run_unless_the_same_bits_are_asked_for(switches: None) -> None:
    set_up_device(configure(), "cuda")
    assert not torch.are_deterministic_algorithms_enabled() and cudnn.benchmark
    assert not cuda.matmul.allow_tf32 and not cudnn.allow_tf32
    assert cuda.mem_efficient_sdp_enabled() and cuda.cudnn_sdp_enabled()
    set_up_device(configure("--tf32=true", "--deterministic=true"), "cuda")
    assert torch.are_deterministic_algorithms_enabled() and cudnn.deterministic and not cudnn.benchmark
    assert cuda.matmul.allow_tf32 and cudnn.allow_tf32
    assert not cuda.mem_efficient_sdp_enabled() and not cuda.cudnn_sdp_enabled()
    assert "flash, math" in describe_device(configure(), Accelerator(cpu=True), "fp32")


def test_on_a_cpu_the_same_bits_need_no_option(switches: None) -> None:
    torch.use_deterministic_algorithms(False)
    set_up_device(configure(), "cpu")
    assert torch.are_deterministic_algorithms_enabled()
