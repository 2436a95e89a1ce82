"""A split model computes what the whole model does, and what its second half learns is in the whole one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.clip.fakes import hf_text, register, timm_tower, write_bert
from training.clip.config import ModelConfig
from training.clip.features import image_features_both
from training.clip.frozen_prefix import split_frozen_prefix
from training.clip.load import Clip, build_clip
from training.errors import ConfigError

LOCKED = ModelConfig(lock_image=True, lock_text=True, freeze_batch_norm=True)


def model_of(folder: Path, name: str, trunk: str = "efficientnet_lite0", groups: int = 2) -> Clip:
    torch.manual_seed(0)
    bert = write_bert(folder / name)
    register(
        folder,
        name,
        timm_tower(trunk, 64, timm_pool="avg", timm_proj="linear"),
        hf_text(str(bert), hf_pooler_type="mean_pooler"),
    )
    config = replace(LOCKED, name=name, text_weights=str(bert), lock_image_unlocked_groups=groups)
    clip = build_clip(config)
    for module in clip.model.modules():  # statistics as after a training, so that BatchNorm does something
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
    return clip


def batch(clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return images, clip.tokenizer(["chest ct", "head mri of the head", "normal"])


@pytest.mark.parametrize(
    ("trunk", "groups"), [("efficientnet_lite0", g) for g in (0, 1, 2, 9)] + [("resnet10t", 0)]
)
def test_both_halves_give_what_the_whole_gives(trunk: str, groups: int, tmp_path: Path) -> None:
    clip = model_of(tmp_path, f"cut-{trunk}-{groups}", trunk, groups)
    images, tokens = batch(clip)
    parts = split_frozen_prefix(clip.model, 64)
    assert parts.text_part is not None
    clip.model.train(), parts.learner.train()
    whole = clip.model(images, tokens)
    halves = parts.learner(parts.image_part(images), parts.text_part(tokens))
    for name in ("image_features", "text_features", "logit_scale"):
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-5)
    for found, expected in zip(
        image_features_both(parts.learner.eval(), parts.image_part(images)),
        image_features_both(clip.model.eval(), images),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_all_that_learns_is_in_the_learner_and_the_same_as_in_the_whole_model(tmp_path: Path) -> None:
    clip = model_of(tmp_path, "cut-shared")
    images, tokens = batch(clip)
    parts = split_frozen_prefix(clip.model, 64)
    learning = {id(value) for value in clip.model.parameters() if value.requires_grad}
    assert {id(value) for value in parts.learner.parameters() if value.requires_grad} == learning
    assert not any(value.requires_grad for value in parts.image_part.parameters())
    before = clip.model.eval()(images, tokens)["image_features"].clone()
    optimizer = torch.optim.SGD([p for p in parts.learner.parameters() if p.requires_grad], lr=1.0)
    frozen = parts.image_part(images)
    assert parts.text_part is not None
    output = parts.learner.train()(frozen, parts.text_part(tokens))
    (output["image_features"] @ output["text_features"].T).diagonal().sum().backward()
    optimizer.step()
    after = clip.model.eval()(images, tokens)["image_features"]
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(parts.image_part(images), frozen, rtol=0, atol=0)  # frozen is frozen
    halves = parts.learner.eval()(frozen, parts.text_part(tokens))["image_features"]
    torch.testing.assert_close(halves, after, rtol=1e-4, atol=1e-5)


def test_train_mode_reaches_what_learns_and_nothing_frozen(tmp_path: Path) -> None:
    clip = model_of(tmp_path, "cut-modes")
    learner = split_frozen_prefix(clip.model, 64).learner.train()
    norms = [module for module in learner.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert learner.training and learner.visual.head.training  # type: ignore[union-attr]
    learner.eval()
    assert not any(module.training for module in learner.modules())


def test_a_text_tower_that_learns_keeps_its_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    name = register(tmp_path, "cut-tokens", timm_tower("efficientnet_lite0", 64, timm_proj="linear"))
    clip = build_clip(ModelConfig(name=name, lock_image=True, freeze_batch_norm=True))
    parts = split_frozen_prefix(clip.model, 64)
    assert parts.text_part is None
    tokens = clip.tokenizer(["chest ct"])
    assert parts.learner(None, tokens)["text_features"].shape == (1, 16)


@pytest.mark.parametrize(
    ("trunk", "locked", "message"),
    [
        ("efficientnet_lite0", False, "whose first layers are frozen"),
        ("resnet10t", True, "can split EfficientNets"),
    ],
)
def test_what_cannot_be_split_is_an_error(trunk: str, locked: bool, message: str, tmp_path: Path) -> None:
    name = register(tmp_path, f"cut-no-{trunk}", timm_tower(trunk, 64, timm_proj="linear"))
    config = ModelConfig(name=name, lock_image=locked, lock_image_unlocked_groups=1 if locked else 0)
    with pytest.raises(ConfigError, match=message):
        split_frozen_prefix(build_clip(config).model, 64)


def test_towers_of_open_clip_itself_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs an image tower of timm"):
        split_frozen_prefix(build_clip(ModelConfig(name="test-vit", lock_image=True)).model, 32)


def test_a_trunk_that_does_more_than_its_layers_is_refused(tmp_path: Path) -> None:
    clip = model_of(tmp_path, "cut-more")
    trunk = clip.model.visual.trunk  # type: ignore[union-attr]
    original = type(trunk).forward_features

    class Doubled(type(trunk)):  # type: ignore[misc]
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            scale = 2.0 if x.shape[1] == 3 else 1.0
            return torch.as_tensor(original(self, x)) * scale

    trunk.__class__ = Doubled
    with pytest.raises(ConfigError, match="more than its layers"):
        split_frozen_prefix(clip.model, 64)
