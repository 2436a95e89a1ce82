"""A fine-tuning that was killed goes on as if nothing had happened, and two processes take the steps of one.

Run by pytest, this file starts itself twice under torchrun; each of those processes writes the gradients it got to
``rankN.pt``.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from kg_targets.manifest import Manifest
from tests import REPOSITORY
from tests.processes import run_in_two_processes
from tests.training.vqa.world import finetune_arguments, logged, write_world
from training.arguments import read_config
from training.engine.checkpoint import FINISHED
from training.engine.process import end_process
from training.engine.state import STATE
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.finetune.run import FinetuneRun
from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.saving import WEIGHTS
from training.run import main as run
from training.vqa.protocols import prepare

STEPS = 20
"""Optimizer steps of a run: four epochs of five."""
TOLERANCE = 1e-5

pytestmark = pytest.mark.e2e


def options(world: Path, output: Path, *extra: str) -> list[str]:
    """With dropout, whose draws must be the same after a continuation."""
    return finetune_arguments(
        world,
        output,
        "--optim.epochs=4",
        "--save.every=1",
        "--model.dropout=0.1",
        "--validate_every=2",
        *extra,
    )


def gradients(
    world: Path, accelerator: Accelerator, knowledge: bool, micro_batch: int | None = None
) -> list[dict[str, Tensor]]:
    """This process's gradients after each of the first two batches.

    The second batch matters: only there does DDP complain about a parameter that got no gradient before.
    """
    torch.manual_seed(0)
    options = f"--data.knowledge={str(knowledge).lower()}", f"--data.micro_batch={micro_batch or 'null'}"
    given = finetune_arguments(world, world / "unused", *options)
    config = read_config(FinetuneConfig, given)
    split = prepare(Manifest.load("vqa_rad", "questions"), world / "data", "strict", validation_share=0.2)
    task = FinetuneRun(config, accelerator, build_med_vqa(config.model), split)
    collected = []
    for step, batch in enumerate(task.batches(1, 0, 1), start=1):
        task.model.zero_grad()
        task.backward(batch, step, measured=True)
        parameters = accelerator.unwrap_model(task.model).named_parameters()
        collected.append({name: p.grad.clone() for name, p in parameters if p.grad is not None})
        if step == 2:
            break
    return collected


def work(world: Path) -> None:
    """What each process under torchrun does."""
    accelerator = Accelerator()
    result = {str(knowledge): gradients(world, accelerator, knowledge) for knowledge in (True, False)}
    result["in micro-batches"] = gradients(world, accelerator, True, micro_batch=3)
    torch.save(result, world / f"rank{accelerator.process_index}.pt")
    end_process(run(options(world, world / "two", "--model.dropout=0")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, tokenizer/ and an uninterrupted run, whole/."""
    folder = write_world(tmp_path_factory.mktemp("vqa") / "world")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(options(folder, folder / "whole")) == 0
    return folder


def assert_like_the_uninterrupted(world: Path, output: Path) -> None:
    """Every logged loss, the chosen epoch and the weights, byte for byte."""
    assert logged(output, "loss") == logged(world / "whole", "loss") and len(logged(output, "loss")) == STEPS
    assert logged(output, "accuracy") == logged(world / "whole", "accuracy")
    for name in ("metrics.json", f"checkpoint/{WEIGHTS}"):
        assert (output / name).read_bytes() == (world / "whole" / name).read_bytes()
    assert (output / FINISHED).is_file() and not (output / STATE).exists()


class Crash(BaseException):
    """The process ends here, as far as the run is concerned."""


@pytest.mark.parametrize("every", [1, 3])
def test_after_a_crash_in_an_epoch_the_same_questions_come_in_the_same_order(
    every: int, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, asked, crash_at = FinetuneRun.backward, list[tuple[int, list[str]]](), 9

    def backward(self: FinetuneRun, batch: Tensor, step: int, measured: bool) -> Any:
        if step == crash_at:
            raise Crash
        asked.append((step, self.ids(batch)))
        return original(self, batch, step, measured)

    monkeypatch.setattr(FinetuneRun, "backward", backward)
    again = options(world, tmp_path / "run", f"--save.every={every}")
    with pytest.raises(Crash):
        run(again)
    saved, crash_at = {1: 8, 3: 6}[every], -1
    assert run([*again, "--resume=must"]) == 0
    assert [step for step, _ in asked] == [*range(1, 9), *range(saved + 1, STEPS + 1)]
    assert asked[saved:8] == asked[8 : 8 + 8 - saved]
    assert_like_the_uninterrupted(world, tmp_path / "run")


def test_a_run_killed_without_warning_continues_identically(world: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "training/run.py", *options(world, output)],
        cwd=REPOSITORY,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (output / "log.jsonl").is_file() or len(logged(output, "loss")) < 7:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (output / FINISHED).exists()
    assert run(options(world, output)) == 0
    assert_like_the_uninterrupted(world, output)


@pytest.fixture(scope="module")
def launched(world: Path) -> Path:
    """The world after two processes have worked in it: one launch, since most of its time is for imports."""
    run_in_two_processes(__file__, world)
    return world


def assert_same(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]]) -> None:
    for actual, expected in zip(found, wanted, strict=True):
        assert actual.keys() == expected.keys()
        norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm().item()
        for name, gradient in expected.items():
            # A parameter whose gradient is but rounding (a key bias, say) is held to the whole gradient's size.
            size = max(gradient.norm().item(), 1e-2 * norm)
            assert (actual[name] - gradient).norm().item() <= TOLERANCE * size, name


@pytest.mark.parametrize("case", ["True", "False", "in micro-batches"])
def test_two_processes_get_the_gradient_of_one_on_the_whole_batch(case: str, launched: Path) -> None:
    alone = gradients(launched, Accelerator(cpu=True), case != "False")
    for rank in (0, 1):
        assert_same(torch.load(launched / f"rank{rank}.pt", weights_only=True)[case], alone)


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(micro_batch: int, world: Path) -> None:
    accelerator = Accelerator(cpu=True)
    whole = gradients(world, accelerator, True)
    assert_same(gradients(world, accelerator, True, micro_batch), whole)


def test_a_run_of_two_processes_takes_the_steps_of_one(launched: Path, tmp_path: Path) -> None:
    assert run(options(launched, tmp_path / "one", "--model.dropout=0")) == 0
    one, two = (logged(folder, "loss") for folder in (tmp_path / "one", launched / "two"))
    assert len(two) == STEPS and two[0] == pytest.approx(one[0], rel=1e-5)
    assert two == pytest.approx(one, rel=1e-2)
    assert logged(launched / "two", "accuracy") == pytest.approx(
        logged(tmp_path / "one", "accuracy"), abs=0.13
    )


if __name__ == "__main__":
    work(Path(sys.argv[1]))
