"""Two real processes (gloo) get the gradient of one on the whole batch, for every term of both stages.

Run by pytest, this file computes the single process's gradients and starts itself twice under torchrun; each of those
processes writes the gradients it got to ``rankN.pt``.
"""

import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from tests.processes import run_in_two_processes
from tests.training.med_vqa.pretrain.world import (
    pretrain_arguments,
    stage_two,
    write_pretrain_world,
    write_teacher_store,
)
from tests.training.vqa.world import logged
from training.arguments import read_config
from training.engine.process import end_process
from training.med_vqa.pretrain.config import PretrainConfig
from training.med_vqa.pretrain.run import prepare_run
from training.run import main as run

TOLERANCE = 1e-5
TERMS = {
    "image-text": ("--loss.views_weight=0", "--loss.texts_weight=0"),
    "hard labels": ("--soft_labels=[]",),
    "stage one": (),
    "transport": ("--stage=two", "--loss.matching_weight=0"),
    "matching": ("--stage=two", "--loss.transport_weight=0"),
    "stage two": ("--stage=two", "--loss.learn_temperatures=true", "--data.views=study"),
}

pytestmark = pytest.mark.e2e


def options(world: Path, output: Path, *extra: str) -> list[str]:
    """Without dropout, whose draws are each process's own; labels of the graph and of an asymmetric teacher."""
    labels = f"[{{store: {world / 'store'}}}, {{store: {world / 'teacher'}, weight: 0.5}}]"
    start = stage_two(world / "start")[1:] if "--stage=two" in extra else []
    return pretrain_arguments(world, output, "--model.dropout=0", f"--soft_labels={labels}", *start, *extra)


def gradients(world: Path, accelerator: Accelerator, term: str) -> list[dict[str, Tensor]]:
    """This process's gradients after each of the first two batches, and what it measured.

    The second batch matters: only there does DDP complain about a parameter that got no gradient before.
    """
    torch.manual_seed(0)
    given = options(world, world / "unused", *TERMS[term])
    task = prepare_run(read_config(PretrainConfig, given)).build(accelerator)
    collected = []
    for step, batch in enumerate(task.batches(1, 0, 1), start=1):
        task.model.zero_grad()
        values = task.backward(batch, step, measured=True)
        reduced = {
            f"value {name}": accelerator.reduce(value.float(), "mean") for name, value in values.items()
        }
        parameters = accelerator.unwrap_model(task.model).named_parameters()
        found = {name: p.grad.clone() for name, p in parameters if p.grad is not None}
        collected.append({**found, **{name: reduced[name] for name in sorted(reduced)}})
        if step == 2:
            break
    return collected


def work(world: Path) -> None:
    """What each process under torchrun does."""
    accelerator = Accelerator()
    result = {term: gradients(world, accelerator, term) for term in TERMS}
    torch.save(result, world / f"rank{accelerator.process_index}.pt")
    AcceleratorState._reset_state(reset_partial_state=False)
    end_process(run(options(world, world / "two", *TERMS["stage two"])))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world after two processes have worked in it: one launch, since most of its time is for imports."""
    world = write_pretrain_world(tmp_path_factory.mktemp("processes") / "world")
    write_teacher_store(world / "teacher", world / "store")
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(pretrain_arguments(world, world / "start", "--optim.max_steps=2")) == 0
    run_in_two_processes(__file__, world)
    return world


@pytest.mark.parametrize("term", TERMS)
def test_two_processes_get_the_gradient_of_one_on_the_whole_batch(term: str, launched: Path) -> None:
    alone = gradients(launched, Accelerator(cpu=True), term)
    for rank in (0, 1):
        result = torch.load(launched / f"rank{rank}.pt", weights_only=True)[term]
        for actual, expected in zip(result, alone, strict=True):
            assert actual.keys() == expected.keys()
            trained = [value.flatten() for name, value in expected.items() if not name.startswith("value ")]
            norm = torch.cat(trained).norm().item()
            for name, gradient in expected.items():
                # A parameter whose gradient is but rounding (a key bias, say) is held to the whole gradient's size.
                size = max(gradient.norm().item(), 1e-2 * norm)
                assert (actual[name] - gradient).norm().item() <= TOLERANCE * size, name


def test_a_run_of_two_processes_takes_the_steps_of_one(launched: Path, tmp_path: Path) -> None:
    assert run(options(launched, tmp_path / "one", *TERMS["stage two"])) == 0
    for name in ("loss", "transport", "matching", "no_negative", "mrr"):
        one, two = logged(tmp_path / "one", name), logged(launched / "two", name)
        assert len(two) == len(one) and two == pytest.approx(one, rel=1e-2, abs=1e-6)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
