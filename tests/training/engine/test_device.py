"""How a run uses its device: the launcher's precision, torch's switches, and the first line that tells of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from torch.backends import cuda, cudnn

from tests import REPOSITORY
from tests.training.data.test_data import configure
from tests.training.med_vqa.pretrain.world import pretrain_arguments, write_pretrain_world
from tests.training.tiny import arguments, write_world
from tests.training.vqa.world import finetune_arguments
from training.arguments import read_config
from training.clip.config import LAUNCHER_PRECISION, ModelConfig
from training.engine.device import SHARDING, describe_device, set_up_device
from training.errors import ConfigError, DataError
from training.med_vqa.model.config import VQAModelConfig
from training.run import main as run
from training.tasks import find_task


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


@pytest.mark.parametrize("name", SHARDING)
def test_a_launch_that_splits_the_model_is_refused_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "true")
    assert run(arguments(tmp_path, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: accelerate's ") and error.count("\n") == 1
    assert "training/configs/accelerate/ddp.yaml" in error


def test_accelerate_reads_the_shipped_configuration() -> None:
    read = load_config_from_file(str(REPOSITORY / "training" / "configs" / "accelerate" / "ddp.yaml"))
    assert str(read.distributed_type.value) == "MULTI_GPU" and read.mixed_precision == "bf16"


def missing(folder: Path, arguments: list[str]) -> str:
    """The error of a run whose images are gone, found before its model is built."""
    for path in folder.rglob("*.png"):
        path.unlink()
    task = find_task(arguments)
    config: Any = read_config(task.config, arguments)
    with pytest.raises(DataError) as caught:
        task.load()(config)
    return str(caught.value)


@pytest.mark.e2e
def test_missing_images_are_noticed_before_weights_are_loaded(tmp_path: Path) -> None:
    write_world(tmp_path / "nb_clip")
    write_pretrain_world(tmp_path / "vqa")
    pretraining = pretrain_arguments(tmp_path / "vqa", tmp_path / "run")
    for folder, given in (
        ("nb_clip", arguments(tmp_path / "nb_clip", tmp_path / "run")),
        ("vqa/captioned", pretraining),
        ("vqa/data", finetune_arguments(tmp_path / "vqa", tmp_path / "run")),
    ):
        assert "data.max_broken" in missing(tmp_path / folder, given)
