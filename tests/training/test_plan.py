"""`kg-targets plan`: sizes of a run of each task, estimated without weights, pixels or a network."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.processes import kg_targets
from tests.training import tiny
from tests.training.med_vqa.pretrain.world import pretrain_arguments, stage_two, write_pretrain_world
from tests.training.vqa.world import finetune_arguments
from training import plan as module
from training.data import dataset, decode
from training.engine.outline import Outline, estimate_memory
from training.plan import plan
from training.run import main as run

pytestmark = pytest.mark.e2e


class Squares(nn.Module):
    """Keeps its input ``[B, 1000]`` once for the backward pass; half of its parameters learn."""

    def __init__(self) -> None:
        super().__init__()
        self.learns, self.frozen = nn.Parameter(torch.ones(1000)), nn.Parameter(torch.ones(1000), False)

    def forward(self, count: int) -> Tensor:
        return (torch.rand(count, 1000) * self.learns).sum()


def test_memory_is_that_of_weights_gradients_moments_and_of_what_the_backward_pass_needs() -> None:
    model = Squares()
    outline = Outline(model, model, 10, "images", 10, 32, None)
    found = estimate_memory(outline, "fp32", 64)
    assert (found.weights, found.gradients, found.moments) == (8000, 4000, 8000)
    assert found.activations == 64 * 4000 and found.total == 20_000 + 64 * 4000
    pieces = Outline(model, model, 10, "images", 10, 32, None, at_once=16)
    assert estimate_memory(pieces, "fp32", 64).activations == 16 * 4000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    tiny.write_world(folder / "nb_clip")
    write_pretrain_world(folder / "vqa")
    return folder


def test_every_task_is_planned_without_decoding_an_image(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = world / "one"
    assert run(pretrain_arguments(world / "vqa", start, "--optim.max_steps=1")) == 0
    for owner in (dataset, decode):
        monkeypatch.setattr(owner, "for_each", None)
    pretraining = pretrain_arguments(world / "vqa", tmp_path / "run")
    planned = {
        "nb_clip": plan([*tiny.arguments(world / "nb_clip", tmp_path / "run"), "--model.pretrained=openai"]),
        "finetune": plan(finetune_arguments(world / "vqa", tmp_path / "run")),
        "one": plan(pretraining, processes=2),
        "two": plan([*pretraining, *stage_two(start)]),
    }
    assert planned["nb_clip"]["images"] == 28 and planned["nb_clip"]["steps"] == 4
    assert (
        planned["one"]["examples"] == 20 and planned["one"]["images"] == 24 and planned["one"]["steps"] == 4
    )
    assert planned["two"]["trained_parameters"] < planned["two"]["parameters"]
    for found in planned.values():
        assert found["memory_mb"]["total"] >= found["memory_mb"]["activations"]
        assert found["in_memory"] and found["decoded_mb"] == found["images"] * 3 * 32**2 // 10**6
    assert not (tmp_path / "run").exists()


def test_the_command_prints_lines_or_json_and_checks_the_data_first(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output: unused\n")
    fields = tiny.arguments(world / "nb_clip", tmp_path / "run")
    assert kg_targets("plan")(["--json", "--processes", 2, file, *fields]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["processes"] == 2 and found["steps_per_epoch"] == 2
    assert kg_targets("plan")([file, *fields]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["data", "model", "steps", "memory"]
    assert "16 images to learn from; 28 images" in lines[0] and "not measured on a card" in lines[3]
    monkeypatch.setattr(module, "estimate_memory", None)
    assert kg_targets("plan")([file, *fields, f"--data.data_root={tmp_path}"]) == 2
    assert "data.max_broken" in capsys.readouterr().err
    assert kg_targets("plan")([file, *fields, "--data.batch_size=32"]) == 2
    assert "data.batch_size 32 exceeds the 16 images of an epoch" in capsys.readouterr().err
    assert kg_targets("plan")(["--processes", 3, file, *fields]) == 2
    assert "data.batch_size 8 is not a multiple of the 3 processes" in capsys.readouterr().err
