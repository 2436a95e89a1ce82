"""Steps of NB-CLIP and of the three Med-VQA phases on a device of its own: no mixed devices, few waits of the host."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from tests.training import tiny
from tests.training.conftest import reset_accelerate
from tests.training.fake_device import DEVICE, DeviceTensor, FakeDevice, fake_device
from tests.training.inline import Inline
from tests.training.med_vqa.pretrain.world import pretrain_arguments, stage_two, write_pretrain_world
from tests.training.vqa.world import finetune_arguments
from training.arguments import read_config
from training.engine.loop import Loop
from training.med_vqa.pretrain import run as pretrain_run
from training.nb_clip import run as nb_clip_run
from training.run import main as run
from training.tasks import find_task

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (nb_clip_run, pretrain_run):
        monkeypatch.setattr(module, "ThreadPoolExecutor", Inline)


SILENT: Any = SimpleNamespace(due=lambda step: False, advance=lambda count: None)
"""A tracker that is never due: logging may wait."""


class Recorder:
    """A tracker that is due in every step and keeps what it is told."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def due(self, step: int) -> bool:
        return True

    def advance(self, count: int) -> None:
        pass

    def step(self, step: int, values: dict[str, float], waited: float) -> None:
        self.values.append(values)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    tiny.write_world(folder / "nb_clip")
    write_pretrain_world(folder / "vqa")
    return folder


def nb_clip(world: Path, output: Path) -> list[str]:
    return tiny.arguments(world / "nb_clip", output, "--data.dev_store=null")


def nb_clip_in_micro_batches(world: Path, output: Path) -> list[str]:
    return [*nb_clip(world, output), "--loss.micro_batch=4"]


def finetune(world: Path, output: Path) -> list[str]:
    return finetune_arguments(world / "vqa", output)


def stage_one(world: Path, output: Path) -> list[str]:
    return pretrain_arguments(world / "vqa", output, "--loss.learn_temperatures=true")


def second_stage(world: Path, output: Path) -> list[str]:
    start = world / "one"
    if not start.exists():
        assert run(pretrain_arguments(world / "vqa", start, "--optim.max_steps=1")) == 0
        reset_accelerate()
    return pretrain_arguments(world / "vqa", output, *stage_two(start, "--loss.learn_temperatures=true"))


Arguments = Callable[[Path, Path], list[str]]


def loop_of(arguments: list[str], device: torch.device | None) -> Loop[Any]:
    task = find_task(arguments)
    config: Any = read_config(task.config, arguments)
    accelerator = Accelerator(cpu=True)
    if device is not None:
        for state in (PartialState, AcceleratorState):
            state._shared_state["device"] = device
    torch.manual_seed(0)
    return Loop(config, accelerator, task.load()(config).build(accelerator), "unused")


def steps(loop: Loop[Any], tracker: Any, count: int = 2) -> None:
    for batch in loop.task.batches(1, 0, 1):
        loop.progress.step += 1
        loop._step(batch, tracker)
        if loop.progress.step == count:
            break


PHASES = [(nb_clip, 1), (nb_clip_in_micro_batches, 1), (finetune, 2), (stage_one, 1), (second_stage, 2)]


@pytest.mark.parametrize("arguments", [phase for phase, _ in PHASES])
def test_a_step_makes_every_tensor_on_its_device_and_measures_what_the_cpu_measures(
    arguments: Arguments, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(world, tmp_path / "run")
    # Groups of texts by length are the CPU's alone: they would draw other dropout.
    given += [] if arguments in (nb_clip, nb_clip_in_micro_batches) else ["--model.dropout=0"]
    on_cpu, on_device = Recorder(), Recorder()
    steps(loop_of(given, None), on_cpu)
    reset_accelerate()
    with fake_device(monkeypatch):
        loop = loop_of(given, DEVICE)
        steps(loop, on_device)
        for name, value in loop.task.model.named_parameters():
            assert isinstance(value, DeviceTensor), name
    assert len(on_cpu.values) == len(on_device.values) == 2
    for expected, found in zip(on_cpu.values, on_device.values, strict=True):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("arguments", "allowed"), PHASES)
def test_the_host_waits_for_the_device_no_more_than_it_must(
    arguments: Arguments, allowed: int, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(world, tmp_path / "run")
    with fake_device(monkeypatch) as device:
        loop = loop_of(given, DEVICE)
        waits = waits_per_step(loop, device)
    assert max(len(one) for one in waits) <= allowed, "\n".join(max(waits, key=len))


@pytest.mark.parametrize("arguments", [finetune, stage_one, second_stage])
def test_convolutions_of_med_vqa_lie_as_tensor_cores_want_them(
    arguments: Arguments, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(world, tmp_path / "run")
    steps(loop := loop_of(given, None), SILENT, 1)
    assert not any(map(channels_last, kernels(loop)))
    reset_accelerate()
    with fake_device(monkeypatch):
        steps(loop := loop_of(given, DEVICE), SILENT, 1)
        assert kernels(loop) and all(map(channels_last, kernels(loop)))


def kernels(loop: Loop[Any]) -> list[torch.Tensor]:
    """Weights of convolutions over more than a point."""
    return [value for value in loop.task.model.parameters() if value.dim() == 4 and value.shape[2] > 1]


def channels_last(weight: torch.Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)


def waits_per_step(loop: Loop[Any], device: FakeDevice) -> list[list[str]]:
    found = []
    for batch in loop.task.batches(1, 0, 1):
        loop.progress.step += 1
        device.waits.clear()
        loop._step(batch, SILENT)
        found.append(list(device.waits))
        if len(found) == 2:
            break
    return found
