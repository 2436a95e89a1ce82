"""Batches, augmentation, schedule and options: the parts of a run that need no model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training.data.files import resolve
from training.data.samplers.base import RandomSampler
from training.data.transforms import Augmentation
from training.engine.config import OptimConfig
from training.engine.loop import make_optimizer, make_schedule
from training.errors import ConfigError, DataError
from training.nb_clip.config import TrainConfig
from training.options import build, help_text, leaves, read_options, to_yaml

REQUIRED = ["--output=o", "--data.train_store=t", "--data.data_root=d"]


def configure(*arguments: str) -> TrainConfig:
    return build(TrainConfig, read_options(TrainConfig, [*REQUIRED, *arguments]))


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


def test_every_field_is_documented_in_the_help_with_its_default() -> None:
    text = help_text(TrainConfig, "run")
    for option in leaves(TrainConfig):
        assert option.doc, f"{option.name} has no documentation"
        assert f"--{option.name} " in text and option.doc in text
    assert "--data.batch_size integer   (default 128)" in text


def test_flags_override_the_file_and_the_resolved_yaml_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("output: x\noptim: {lr: 1e-3, epochs: 3}\ndata: {train_store: t, data_root: d}\n")
    config = build(TrainConfig, read_options(TrainConfig, ["--config", str(file), "--optim.epochs", "5"]))
    assert (config.optim.lr, config.optim.epochs, config.output) == (1e-3, 5, "x")
    file.write_text(to_yaml(config))
    assert build(TrainConfig, read_options(TrainConfig, ["--config", str(file)])) == config


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--optim.learning_rate=1", "not a config field"),
        ("--optim.lrr=1", 'did you mean "optim.lr"'),
        ("--optim.epochs=1.5", "optim.epochs must be integer"),
        ("--optim.lr=fast", "optim.lr must be number"),
        ("--optim.lr=nan", "optim.lr: nan must be at least"),
        ("--data.in_memory=maybe", "data.in_memory must be true/false"),
        ("--seed", "--seed has no value"),
        ("seed=1", "is not an option"),
        ("--loss.name=mse2", '"mse2" is not one of semantic_matching, info_nce'),
        ("--policy.alpha=1.2", "policy.alpha: 1.2 must be at least 1e-06 and at most 1"),
        ("--data.dev_store=t", "data.dev_store and data.train_store are the same"),
        ("--select=recall@5", "is not cui@K or p@K"),
    ],
)
def test_wrong_options_are_named_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(argument)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("output: [", "not valid YAML"),
        ("- a", "expected a mapping"),
        ("optim: {lr: 1, speed: 2}", '"optim.speed" is not a config field'),
        ("loss: info_nce", '"loss" is not a config field (did you mean "loss.name"?)'),
    ],
)
def test_wrong_yaml_is_named_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_options(TrainConfig, ["--config", str(tmp_path / "c.yaml")])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_optional_fields_take_null_and_text_stays_text() -> None:
    config = configure("--optim.clip_norm=null", "--data.dev_store=7", "--output=007")
    assert config.optim.clip_norm is None and config.data.dev_store == "7" and config.output == "007"


def test_a_slice_of_the_drawn_transforms_is_the_same_as_all_of_them() -> None:
    images = torch.rand(10, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    augment = Augmentation(10, 0.1, 0.1, 0.1)
    drawn = augment.draw(10, torch.Generator().manual_seed(5))
    whole = augment.apply(images, drawn)
    assert len(drawn) == 10 and len(drawn[2:5]) == 3
    for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
        torch.testing.assert_close(augment.apply(images[part], drawn[part]), whole[part], atol=1e-6, rtol=0)
    assert torch.equal(augment(images, torch.Generator().manual_seed(5)), whole)
