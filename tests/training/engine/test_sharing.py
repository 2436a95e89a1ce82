"""The dev part is encoded by all processes together, at the precision of the training, and scored as by one process.

Run by pytest, this file starts itself twice under torchrun; each process writes what it encoded and scored.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tests.processes import run_in_two_processes
from tests.training import tiny
from tests.training.med_vqa.pretrain.world import pretrain_arguments, write_pretrain_world
from training.arguments import read_config
from training.engine.process import end_process
from training.med_vqa.model.modeling import MedVQAModel
from training.med_vqa.pretrain import run as pretrain_run
from training.nb_clip import inputs
from training.tasks import find_task

BATCH = 4
"""Of the dev part, so that both processes have some."""

pytestmark = pytest.mark.e2e


def task_of(arguments: list[str]) -> Any:
    entry = find_task(arguments)
    config: Any = read_config(entry.config, arguments)
    accelerator = Accelerator(cpu=True, mixed_precision={"fp32": "no"}.get(config.model.precision, "bf16"))
    torch.manual_seed(0)
    return entry.load()(config).build(accelerator)


def measured(world: Path, cached: bool = False) -> dict[str, Any]:
    """Features and scores of untrained models, and how many dev images this process encoded for them."""
    inputs.BATCH = pretrain_run.DEV_BATCH = BATCH
    output = world / "unused"
    extra = ["--model.name=lite0-tiny-text", "--model.lock_image=true", "--data.cached_views=1",
             f"--data.cache={world / 'cache'}"] if cached else []  # fmt: skip
    nb_clip = task_of(tiny.arguments(world / "nb_clip", output, "--threads=1", *extra))
    encoded: list[int] = []
    nb_clip.inputs.learner.visual.register_forward_hook(lambda _, given, __: encoded.append(len(given[0])))
    features = nb_clip.inputs.gallery(nb_clip.accelerator.unwrap_model(nb_clip.model))
    found = {"features": torch.as_tensor(features), "encoded": sum(encoded), "score": nb_clip.score()}
    if not cached:
        pretraining = task_of(pretrain_arguments(world / "vqa", output))
        found["mrr"] = pretraining.score()
    return found


def work(world: Path) -> None:
    result = {name: measured(world, name == "cached") for name in ("plain", "cached")}
    torch.save(result, world / f"rank{Accelerator().process_index}.pt")
    end_process(0)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharing")
    tiny.write_world(folder / "nb_clip")
    write_pretrain_world(folder / "vqa", images=40)
    run_in_two_processes(__file__, folder)
    return folder


@pytest.mark.parametrize("name", ["plain", "cached"])
def test_two_processes_share_the_dev_part_and_score_it_as_one(
    name: str, launched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BATCH", BATCH)
    monkeypatch.setattr(pretrain_run, "DEV_BATCH", BATCH)
    torch.set_num_threads(1)
    alone = measured(launched, name == "cached")
    both = [torch.load(launched / f"rank{rank}.pt", weights_only=True)[name] for rank in (0, 1)]
    assert alone["encoded"] == 12 and [one["encoded"] for one in both] == [8, 4]
    for one in both:
        np.testing.assert_array_equal(one["features"].numpy(), alone["features"].numpy())
        assert one["score"] == alone["score"] and one.get("mrr") == alone.get("mrr")


def test_the_dev_part_is_encoded_at_the_precision_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.write_world(tmp_path / "nb_clip")
    write_pretrain_world(tmp_path / "vqa")
    seen: list[bool] = []

    def look(*_: Any) -> None:
        seen.append(torch.is_autocast_enabled("cpu"))

    extra = "--model.precision=bf16"
    nb_clip = task_of(tiny.arguments(tmp_path / "nb_clip", tmp_path / "unused", extra))
    nb_clip.clip.model.visual.register_forward_hook(look)
    assert 0 <= nb_clip.score() <= 1 and seen == [True]
    tokens = MedVQAModel.image_tokens
    monkeypatch.setattr(MedVQAModel, "image_tokens", lambda *given: (look(), tokens(*given))[1])
    assert 0 <= task_of(pretrain_arguments(tmp_path / "vqa", tmp_path / "unused", extra)).score() <= 1
    assert seen == [True, True]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
