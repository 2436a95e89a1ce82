"""Image towers as tokens: every kind that open_clip builds, without its weights and without a network."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import nn

from tests.training.clip import fakes as clip_fakes
from training.clip.load import load_clip, model_config
from training.errors import ConfigError
from training.med_vqa.model.vision import VisionTower, build_tower


def tower(vision_cfg: dict[str, Any], **model_cfg: Any) -> VisionTower:
    torch.manual_seed(0)
    return build_tower({"model_cfg": {"embed_dim": 16, "vision_cfg": vision_cfg, **model_cfg}}).eval()


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_a_vit_of_open_clip_gives_the_tokens_before_its_projection() -> None:
    clip = load_clip("test-vit").model.visual.eval()
    with torch.no_grad():
        pooled = clip(images(32))
        tokens = VisionTower(clip, 32)(images(32))
        assert tokens.shape == (2, 5, 32)  # CLS and 2 × 2 patches
        projection = load_clip("test-vit").model.visual.proj  # of the right shape
        clip.proj = projection
        torch.testing.assert_close(tokens[:, 0] @ projection, clip(images(32)))
    assert pooled.shape == (2, 16)


def test_the_projection_is_not_kept() -> None:
    own = tower(model_config("test-vit")["vision_cfg"])
    names = set(own.state_dict())
    assert "tower.ln_post.weight" in names and not [name for name in names if name.endswith(".proj")]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("test_efficientnet", 25),  # convolutional, NCHW
        ("test_convnext", 25),  # with a norm in its head, which tokens do not pass through
        ("test_vit", 100),  # CLS
        ("test_vit2", 100),  # register tokens
        ("test_vit3", 100),  # pooled by attention
    ],
)
def test_towers_of_timm_put_one_token_for_the_whole_image_first(name: str, places: int) -> None:
    own = tower(clip_fakes.timm_tower(name, 160, timm_pool="avg"))
    tokens = own(images(160))
    assert tokens.shape == (2, places + 1, own.width)
    trunk = timm.create_model(name)
    if not getattr(trunk, "has_class_token", False):
        torch.testing.assert_close(tokens[:, 0], tokens[:, 1:].mean(dim=1))
    tokens.square().sum().backward()
    assert not [
        name for name, value in own.named_parameters() if value.grad is None
    ]  # only what is used is kept


def test_the_grid_goes_row_by_row() -> None:
    own = tower(clip_fakes.timm_tower("test_efficientnet", 64, timm_pool="avg"))
    grid = own.tower.forward_features(images(64))
    torch.testing.assert_close(own(images(64))[:, 1:].transpose(1, 2).reshape(grid.shape), grid)


def test_open_clips_resnet_gives_its_last_grid() -> None:
    own = tower({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32})
    assert own(images(64)).shape == (2, 1 + 4, 8 * 32) and own.width == 256
    assert not [name for name in own.state_dict() if "attnpool" in name]


def test_a_vit_with_attentional_pooling_gives_its_patches() -> None:
    vision = {**model_config("test-vit")["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2}
    own = tower(vision)
    assert own(images(32)).shape == (2, 5, 32)
    own(images(32)).sum().backward()
    assert not [name for name, value in own.named_parameters() if value.grad is None]


def test_quick_gelu_is_kept() -> None:
    vision = model_config("test-vit")["vision_cfg"]
    plain, quick = tower(vision), tower(vision, quick_gelu=True)
    quick.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(images(32)), quick(images(32)))


def test_every_buffer_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("index", torch.arange(4), persistent=False)
            self.class_embedding = nn.Parameter(torch.zeros(8))
            self.attn_pool = None

        def prune_intermediate_layers(self, *_: Any, **__: Any) -> None:
            """As open_clip's."""

    assert "tower.index" in VisionTower(Places(), 32).state_dict()


def test_a_built_in_architecture_of_another_size_gets_positions_for_it() -> None:
    with torch.device("meta"):
        visual = open_clip.CLIP(
            16, {**model_config("test-vit")["vision_cfg"], "image_size": 96}, clip_fakes.TINY_TEXT
        ).visual
    assert visual.positional_embedding.shape[0] == 1 + 36
    assert tower({**model_config("test-vit")["vision_cfg"], "image_size": 96})(images(96)).shape == (
        2,
        37,
        32,
    )


@pytest.mark.parametrize(
    "clip",
    [
        {},
        {"model_cfg": {"embed_dim": 16, "vision_cfg": {"image_size": 32, "colour": 3}}},
        {"model_cfg": {"embed_dim": 16, "vision_cfg": {"image_size": 32, "timm_model_name": "no_such"}}},
        {"model_cfg": {"embed_dim": 16, "vision_cfg": {"image_size": [32, 64], "width": 32, "layers": 1}}},
    ],
)
def test_what_describes_no_image_tower_is_refused(clip: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="clip does not describe an image tower of open_clip"):
        build_tower(clip)
