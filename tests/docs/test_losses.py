"""The recipes of docs/losses.md, as they stand there: on one process and on two, against the trainer's own step.

Run by pytest, this file starts itself twice under torchrun; each of those processes writes its loss and its gradients.
"""

import copy
import os
import re
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kg_targets.losses import chunked, semantic_matching_loss
from kg_targets.losses.policies import evidence_policy, fixed_mass_policy
from kg_targets.store import TargetStore
from tests import REPOSITORY
from tests.processes import run_in_two_processes
from tests.training.tiny import write_store
from training.clip.load import MODEL_CONFIGS
from training.engine.process import end_process
from training.nb_clip.batch_targets import TargetBuilder
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.objective import NBClipObjective

PAGE = (REPOSITORY / "docs" / "losses.md").read_text(encoding="utf-8")
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SHARED, OPEN_CLIP, PLAIN = "What both loops share", "An open_clip loop", "A plain loop with two towers"
LARGE = "Large batches"
POLICIES = {OPEN_CLIP: PolicyConfig(name="evidence"), PLAIN: PolicyConfig(name="evidence")}
IMAGES = 64

pytestmark = pytest.mark.e2e


def blocks(section: str) -> list[str]:
    """The Python blocks under a heading; a small model without weights stands for the one to download."""
    _, _, text = PAGE.partition(f"\n## {section}\n")
    code = CODE.findall(text.partition("\n## ")[0])
    if section != OPEN_CLIP:
        return code
    return [block.replace(', pretrained="openai"', "").replace('"ViT-B-32"', '"test-vit"') for block in code]


def run_blocks(section: str, names: dict[str, Any]) -> None:
    for block in blocks(section):
        names["model_before"] = copy.deepcopy(getattr(names.get("model"), "module", names.get("model")))
        exec(compile(block, f"docs/losses.md, {section}", "exec"), names)


def run_recipe(section: str, shared: dict[str, Any]) -> dict[str, Any]:
    """Names after the blocks of a recipe, in the present folder; ``model_before`` is the model before its only step."""
    open_clip.add_model_config(MODEL_CONFIGS)
    torch.manual_seed(0)
    names = dict(shared)
    run_blocks(section, names)
    return names


def gradients(model: nn.Module) -> dict[str, Tensor]:
    model = getattr(model, "module", model)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def work(folder: Path) -> None:
    """What each process under torchrun does."""
    os.chdir(folder)
    shared: dict[str, Any] = {}
    run_blocks(SHARED, shared)
    for section in (OPEN_CLIP, PLAIN):
        names = run_recipe(section, shared)
        torch.save(
            (names["loss"].detach(), gradients(names["model"])), f"{section}{torch.distributed.get_rank()}.pt"
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the recipes find ``build/demo``."""
    folder = tmp_path_factory.mktemp("recipes")
    write_store(folder / "build/demo/train", folder / "build/demo/data", "train", images=IMAGES)
    return folder


@pytest.fixture(scope="module")
def ranks(world: Path) -> dict[str, list[Any]]:
    """What rank 0 and rank 1 wrote."""
    run_in_two_processes(__file__, world, timeout=240)
    return {
        section: [torch.load(world / f"{section}{rank}.pt", weights_only=True) for rank in (0, 1)]
        for section in (OPEN_CLIP, PLAIN)
    }


class Named(nn.Module):
    """A model whose outputs have the names that the trainer asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        return dict(
            zip(("image_features", "text_features", "logit_scale"), self.model(images, tokens), strict=True)
        )


def trainers_step(names: dict[str, Any], policy: PolicyConfig) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the last batch of a recipe, by the trainer's targets and objective."""
    model = names["model_before"]
    builder = TargetBuilder(names["store"], LossConfig(), policy)
    rows = torch.as_tensor(names["store"].rows(names["ids"]))
    images, tokens = names["images"], names["tokenizer"](names["captions"])
    values = NBClipObjective(LossConfig(), Accelerator(cpu=True)).backward(
        Named(model), lambda start, stop: images[start:stop], tokens, builder.by_rows(rows, rows, 0), 0
    )
    return values["loss"].item(), gradients(model)


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Relative error of the whole gradient."""
    assert actual.keys() == expected.keys() and actual
    size, error = (
        torch.cat([part.flatten() for part in parts]).norm().item()
        for parts in (expected.values(), [actual[name] - expected[name] for name in expected])
    )
    assert size > 0 and error <= tolerance * size


@pytest.mark.parametrize("section", [OPEN_CLIP, PLAIN])
def test_a_recipe_takes_the_trainers_step_and_two_processes_that_of_one(
    section: str, world: Path, ranks: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    shared: dict[str, Any] = {}
    run_blocks(SHARED, shared)
    names = run_recipe(section, shared)
    loss, gradient = names["loss"].item(), gradients(names["model"])
    expected, trainers = trainers_step(names, POLICIES[section])
    assert loss == pytest.approx(expected, abs=1e-6)
    assert_close(gradient, trainers, 1e-5)
    losses = [found.item() for found, _ in ranks[section]]
    assert sum(losses) / 2 == pytest.approx(loss, abs=1e-6) and losses[0] != losses[1]
    for _, found in ranks[section]:
        assert_close(found, gradient, 1e-5)


def test_the_recipes_targets_are_soft_and_leave_cases_and_unknown_images_out(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    names: dict[str, Any] = {}
    run_blocks(SHARED, names)
    store: TargetStore = names["store"]
    for policy in (fixed_mass_policy, lambda S, pairs: evidence_policy(S, store.threshold, pairs=pairs)):
        rows = torch.arange(len(store))
        targets, mask = names["soft_targets"](rows, rows, 0, policy)
        assert 0.5 < targets.diagonal()[:-2].mean() < 0.9 and targets[-1, -1] == 1
        assert mask[0, 1] and not mask.diagonal().any() and not targets[mask].any()


def test_the_recipe_for_large_batches_has_the_loss_and_the_gradient_of_one_piece(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setattr(chunked, "rows_at_once", lambda *_: 5)
    names: dict[str, Any] = {}
    run_blocks(SHARED, names)
    run_blocks(LARGE, names)
    monkeypatch.setitem(names, "BATCH", IMAGES)
    store, rows = names["store"], torch.arange(IMAGES)
    drawn = torch.randn(2, IMAGES, 8, generator=torch.Generator().manual_seed(0))
    image, text = (nn.functional.normalize(part, dim=-1).requires_grad_() for part in drawn)
    scale = torch.tensor(14.3, requires_grad=True)
    found = names["loss_in_chunks"](image, text, scale, store.image_ids)
    targets, mask = names["soft_targets"](rows, rows, 0, threshold=store.threshold)
    logits = scale * image @ text.T, scale * text @ image.T
    expected = semantic_matching_loss(*logits, targets, targets, mask=mask)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, other in zip(
        *(torch.autograd.grad(loss, (image, text, scale)) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_every_block_is_at_most_15_lines_and_what_is_replaced_is_there() -> None:
    code = CODE.findall(PAGE)
    assert len(code) == sum(len(blocks(section)) for section in (SHARED, OPEN_CLIP, PLAIN, LARGE)) >= 8
    assert max(block.count("\n") for block in code) <= 15
    assert sum('"ViT-B-32", pretrained="openai"' in block for block in code) == 1
    assert sum('"test-vit"' in block for block in blocks(OPEN_CLIP)) == 1


if __name__ == "__main__":
    work(Path(sys.argv[1]))
    end_process(0)
