"""Batches, augmentation, schedule and options: the parts of a run that need no model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.arguments import read_config
from training.data.files import resolve
from training.data.samplers.base import RandomSampler
from training.data.transforms import Augmentation
from training.engine.config import OptimConfig
from training.engine.loop import make_optimizer, make_schedule
from training.errors import ConfigError, DataError
from training.nb_clip.config import TrainConfig

REQUIRED = ["--output=o", "--data.train_store=t", "--data.data_root=d"]


def configure(*arguments: str) -> TrainConfig:
    return read_config(TrainConfig, [*REQUIRED, *arguments])


def test_an_epoch_shows_each_image_at_most_once_and_another_epoch_another_order() -> None:
    batches = RandomSampler(images=23, batch_size=5, seed=1)
    first, second = (np.concatenate(list(batches.epoch(epoch))) for epoch in (1, 2))
    assert len(first) == len(set(first.tolist())) == 20
    assert first.tolist() != second.tolist()
    assert first.tolist() == np.concatenate(list(batches.epoch(1))).tolist()


def test_processes_share_out_the_very_batch_that_one_process_would_see() -> None:
    whole = list(RandomSampler(40, 8, seed=2).epoch(3))
    parts = [list(RandomSampler(40, 8, seed=2, rank=rank, world_size=2).epoch(3)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert np.concatenate([part[step] for part in parts]).tolist() == batch.tolist()


def test_a_batch_that_processes_cannot_share_is_an_error() -> None:
    with pytest.raises(ConfigError, match="9 is not a multiple of the 2 processes"):
        RandomSampler(40, 9, world_size=2)
    with pytest.raises(ConfigError, match="exceeds the 4 images"):
        RandomSampler(4, 8)


def test_augmentation_never_mirrors_an_image() -> None:
    images = torch.zeros(64, 3, 32, 32)
    images[:, :, :, :12] = 1.0  # bright on the left
    moved = Augmentation(rotation=10, shift=0.1, zoom=0.2, brightness=0.1)(
        images, torch.Generator().manual_seed(0)
    )
    assert (moved[..., :16].mean(dim=(1, 2, 3)) > moved[..., 16:].mean(dim=(1, 2, 3))).all()
    assert moved.min() >= 0 and moved.max() <= 1


def test_augmentation_is_decided_by_its_generator_and_can_be_off() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    augment = Augmentation(10, 0.1, 0.1, 0.1)
    first, second = (augment(images, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    unchanged = Augmentation(0, 0, 0, 0)(images, torch.Generator().manual_seed(5))
    torch.testing.assert_close(unchanged, images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png"])
def test_paths_outside_the_data_root_are_refused(path: str) -> None:
    with pytest.raises(DataError, match="outside the data root"):
        resolve(Path("data"), path)


def test_paths_that_stay_inside_are_kept() -> None:
    assert resolve(Path("data"), "a/../b.png") == Path("data/b.png")
    assert resolve(Path("data"), "..odd/b.png") == Path("data/..odd/b.png")


def test_gains_biases_and_the_logit_scale_are_not_decayed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    model.register_parameter("logit_scale", nn.Parameter(torch.tensor(1.0)))
    decayed, kept = make_optimizer(model, OptimConfig(weight_decay=0.2)).param_groups
    assert decayed["weight_decay"] == 0.2 and [p.ndim for p in decayed["params"]] == [2]
    assert kept["weight_decay"] == 0 and len(kept["params"]) == 4


def test_learning_rate_rises_then_falls_to_zero_along_a_cosine() -> None:
    config = OptimConfig(lr=1.0, warmup=0.2)
    optimizer = make_optimizer(nn.Linear(2, 2), config)
    schedule = make_schedule(optimizer, config, total_steps=20)
    rates = []
    for _ in range(21):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    expected = [0.5 * (1 + np.cos(np.pi * (step - 4) / 16)) for step in range(4, 21)]
    assert rates[4:] == pytest.approx(expected)


def test_a_slice_of_the_drawn_transforms_is_the_same_as_all_of_them() -> None:
    images = torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    augment = Augmentation(10, 0.1, 0.1, 0.1)
    drawn = augment.draw(10, torch.Generator().manual_seed(5))
    whole = augment.apply(images, drawn)
    assert len(drawn) == 10 and len(drawn[2:5]) == 3
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        torch.testing.assert_close(augment.apply(images[part], drawn[part]), whole[part], atol=1e-6, rtol=0)
    assert torch.equal(augment(images, torch.Generator().manual_seed(5)), whole)
