"""Two views of an image: which image the second is taken from, and that chance is the step's and not the process's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from kg_targets.store.block import case_codes
from tests.training.med_vqa import fakes as fakes
from training.data.dataset import Batch
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.pretrain.config import PretrainConfig, PretrainDataConfig, PretrainModelConfig
from training.med_vqa.pretrain.corpus import Partners, StepViews

GROUPS = ["a", "a", "a", "b", "", "c", "c", ""]


class Images:
    """As much of ``CaptionedImages`` as views need; image i has the grey value 20·i."""

    rows = np.arange(len(GROUPS))

    def __len__(self) -> int:
        return len(GROUPS)

    def batch(self, positions: Any) -> Batch:
        index = torch.as_tensor(np.asarray(list(positions)))
        pixels = (20 * index).to(torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
        return Batch(index, pixels, torch.zeros(len(index), 0))


def corpus() -> Any:
    images = Images()
    return SimpleNamespace(images=images, dev=images, cases=case_codes(GROUPS), positions=lambda rows: rows)


@pytest.fixture(scope="module")
def vqa(tmp_path_factory: pytest.TempPathFactory) -> MedVQA:
    return fakes.built(tmp_path_factory.mktemp("bert") / "bert")


def configured(folder: Any = "", **data: Any) -> PretrainConfig:
    plain = {"brightness": 0.0, "batch_size": len(GROUPS), "cache": str(folder or "unused"), **data}
    return PretrainConfig(
        output="o",
        model=PretrainModelConfig(preset="tiny", lock_vision=True),
        data=PretrainDataConfig(store="s", data_root="d", **plain),
    )


def views(vqa: MedVQA, folder: Any = "", **data: Any) -> StepViews:
    return StepViews(configured(folder, **data), vqa, corpus(), Accelerator(cpu=True))


def partners(seed: int) -> torch.Tensor:
    return Partners(case_codes(GROUPS))(torch.arange(len(GROUPS)), torch.Generator().manual_seed(seed))


def shown(made: StepViews, vqa: MedVQA, others: torch.Tensor | None = None) -> torch.Tensor:
    """Which image each view of each item shows, int64 ``[2, B]``."""
    images = made(Images().batch(range(len(GROUPS))), 1, 0, others)["images"]
    grey = ((images * vqa.std + vqa.mean) * 255.0).mean(dim=(2, 3, 4))
    return (grey / 20).round().long()


def test_two_augmentations_show_one_image_in_two_ways(vqa: MedVQA) -> None:
    made = views(vqa, brightness=0.1)
    first, second = made(Images().batch(range(8)), 1, 0, None)["images"]
    assert not torch.allclose(first[3], second[3])
    assert torch.equal(shown(views(vqa), vqa), torch.arange(8).expand(2, -1))


def test_a_study_shows_another_image_of_the_case_where_there_is_one(vqa: MedVQA) -> None:
    made = views(vqa, views="study")
    met: dict[int, set[int]] = {place: set() for place in range(8)}
    for seed in range(1, 40):
        others = partners(seed)
        for place, partner in enumerate(others.tolist()):
            met[place].add(partner)
    assert torch.equal(shown(made, vqa, others), torch.stack([torch.arange(8), others]))
    assert met == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 3: {3}, 4: {4}, 5: {6}, 6: {5}, 7: {7}}


def test_cached_views_of_an_item_are_never_the_same_one(vqa: MedVQA, tmp_path: Any) -> None:
    made = views(vqa, tmp_path, cached_views=2, brightness=0.3)
    for step in range(1, 6):
        first, second = made(Images().batch(range(8)), step, 0, None)["image_tokens"]
        assert all(not torch.equal(one, other) for one, other in zip(first[1:], second[1:], strict=True))
    assert made.dev_tokens(np.arange(8)).shape[:2] == (8, 5)


@pytest.mark.parametrize("cached", [0, 3])
def test_an_image_is_seen_alike_whatever_the_number_of_processes(
    cached: int, vqa: MedVQA, tmp_path: Any
) -> None:
    made = views(vqa, tmp_path, views="study", brightness=0.2, cached_views=cached)
    others = partners(5)
    (whole,) = made(Images().batch(range(8)), 5, 0, others).values()
    (part,) = made(Images().batch(range(4, 8)), 5, 4, others[4:]).values()
    torch.testing.assert_close(whole[:, 4:], part)
