"""A model in parts on two real processes (gloo) learns what a whole one does, and is written and read whole.

Run by pytest, this file starts itself twice under torchrun, as tests/training/nb_clip/test_distributed.py does.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from torch import Tensor, distributed, nn

from kg_targets.losses.registry import LOSSES
from tests import REPOSITORY
from tests.processes import run_in_two_processes
from tests.training.med_vqa.pretrain.world import pretrain_arguments, write_pretrain_world
from tests.training.nb_clip.test_distributed import assert_gradients, gradients
from tests.training.tiny import arguments, losses, write_world
from training.clip.load import WEIGHTS, load_clip
from training.engine.checkpoint import CHECKPOINT
from training.engine.process import end_process
from training.engine.sharding import ASKED, ShardingAccelerator, whole
from training.errors import ConfigError
from training.nb_clip.run import NBClipRun, Step
from training.run import main as run

pytestmark = pytest.mark.e2e
KILLED = 4
"""The step in which a run of six is killed."""


def run_arguments(folder: Path, output: str) -> list[str]:
    """Three epochs of two steps, saved after each, with gradients that are clipped."""
    options = "--optim.epochs=3", "--save.every=1", "--optim.clip_norm=0.5", "--threads=1"
    return arguments(folder, folder / output, *options)


def train(folder: Path, output: str, *, sharded: bool) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ASKED, str(sharded).lower())
        return run(run_arguments(folder, output))


class Crash(BaseException):
    """The process ends here, as far as the run is concerned."""


def killed(folder: Path, output: str, *, sharded: bool) -> None:
    """A run that ends in the middle of its second epoch."""
    backward = NBClipRun.backward

    def crash(self: NBClipRun, batch: Step, step: int, measured: bool) -> dict[str, Tensor]:
        if step == KILLED:
            raise Crash
        return backward(self, batch, step, measured)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(NBClipRun, "backward", crash)
        train(folder, output, sharded=sharded)


def work(folder: Path) -> None:
    """What each process under torchrun does."""
    accelerator = ShardingAccelerator()
    result: dict[str, Any] = {}
    for loss in LOSSES:
        for name, micro_batch in ((loss, None), (f"{loss} in micro-batches", 2)):
            steps, _ = gradients(accelerator, loss, micro_batch)
            result[name] = [{name: whole(gradient) for name, gradient in step.items()} for step in steps]
    model: nn.Module = accelerator.prepare(load_clip("test-vit").model)
    local = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in model.parameters())
    result["share"] = local / sum(p.numel() for p in model.parameters())
    torch.save(result, folder / f"rank{accelerator.process_index}.pt")
    Accelerator.end_training = lambda self: None  # a finished run would leave the other process for good
    codes = [train(folder, "whole", sharded=False), train(folder, "parts", sharded=True)]
    killed(folder, "killed", sharded=True)
    killed(folder, "gathered", sharded=False)
    if distributed.get_rank() == 0:
        shutil.copytree(folder / "killed", folder / "elsewhere")
        shutil.copytree(folder / "killed", folder / "alone")
    distributed.barrier()
    codes += [train(folder, "killed", sharded=True), train(folder, "elsewhere", sharded=False)]
    codes.append(train(folder, "gathered", sharded=True))
    end_process(max(codes))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have worked."""
    folder = tmp_path_factory.mktemp("parts")
    write_world(folder)
    run_in_two_processes(__file__, folder, timeout=120)
    return folder


@pytest.fixture(scope="module")
def ranks(launched: Path) -> list[dict[str, Any]]:
    """What rank 0 and rank 1 wrote."""
    return [torch.load(launched / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("passes", ["", " in micro-batches"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_model_in_parts_gets_the_gradient_of_a_whole_one(
    loss: str, passes: str, ranks: list[dict[str, Any]]
) -> None:
    alone, _ = gradients(Accelerator(cpu=True), loss)
    for result in ranks:
        assert_gradients(result[loss + passes], alone)


def test_each_process_holds_its_part(ranks: list[dict[str, Any]]) -> None:
    assert all(0.49 < result["share"] < 0.51 for result in ranks)


def weights(output: Path) -> bytes:
    return (output / CHECKPOINT / WEIGHTS).read_bytes()


def test_its_runs_have_the_losses_of_ddp(launched: Path) -> None:
    assert losses(launched / "parts") == pytest.approx(losses(launched / "whole"), rel=1e-5)
    assert len(losses(launched / "parts")) == 6


def test_a_killed_run_goes_on_identically(launched: Path) -> None:
    assert losses(launched / "killed") == losses(launched / "parts")
    assert weights(launched / "killed") == weights(launched / "parts")


@pytest.mark.parametrize(("output", "begun"), [("elsewhere", "parts"), ("gathered", "whole")])
def test_ddp_goes_on_from_its_state_and_it_from_that_of_ddp(output: str, begun: str, launched: Path) -> None:
    assert losses(launched / output)[: KILLED - 1] == losses(launched / begun)[: KILLED - 1]
    assert losses(launched / output) == pytest.approx(losses(launched / "whole"), rel=1e-5)


def test_another_number_of_processes_does_not_go_on(
    launched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(run_arguments(launched, "alone")) == 2
    error = capsys.readouterr().err
    assert "was saved by 2 process(es) and this is 1: continue with as many" in error
    assert error.count("\n") == 1


def test_without_other_processes_nothing_is_split() -> None:
    model = load_clip("test-vit").model
    accelerator = ShardingAccelerator(cpu=True)
    assert accelerator.prepare(model) is model and accelerator.whole(model) is model


@pytest.mark.parametrize("what", ["fp16", "compilation", "BatchNorm"])
def test_what_would_not_have_the_numbers_of_ddp_is_refused(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardingAccelerator, "num_processes", 2)
    accelerator: Any = ShardingAccelerator(
        cpu=True, dynamo_backend="eager" if what == "compilation" else None
    )
    accelerator.scaler = object() if what == "fp16" else None
    norm = [nn.BatchNorm2d(3)] if what == "BatchNorm" else []
    with pytest.raises(ConfigError, match=f"FSDP does not go with .*{what}"):
        accelerator.prepare_model(nn.Sequential(nn.Conv2d(3, 3, 1), *norm))


@pytest.mark.parametrize("task", ["med_vqa_pretrain", "cached_views"])
def test_runs_that_keep_their_model_whole_refuse_in_one_line(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ASKED, "true")
    if task == "cached_views":
        write_world(tmp_path)
        given = arguments(tmp_path, tmp_path / "run", "--data.cached_views=2", "--model.lock_image=true")
    else:
        write_pretrain_world(tmp_path)
        given = pretrain_arguments(tmp_path, tmp_path / "run")
    assert run(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: FSDP is for nb_clip with data.cached_views 0") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_accelerate_reads_the_shipped_configuration() -> None:
    read = load_config_from_file(str(REPOSITORY / "training" / "configs" / "accelerate" / "fsdp.yaml"))
    assert str(read.distributed_type.value) == "FSDP" and read.fsdp_config == {"fsdp_version": 2}


if __name__ == "__main__":
    work(Path(sys.argv[1]))
