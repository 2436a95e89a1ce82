"""Features before the projection are what the last projection is applied to, for every kind of tower."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.training.clip import fakes as fakes
from training.clip.features import image_features, image_features_both, text_features
from training.clip.load import load_clip

VIT = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
POOLED = {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}

Projection = Callable[[Any, Tensor], Tensor]


def _parameter(visual: Any, x: Tensor) -> Tensor:
    return x @ visual.proj


def _timm_linear(visual: Any, x: Tensor) -> Tensor:
    return x @ visual.head.proj.weight.T


def _timm_mlp(visual: Any, x: Tensor) -> Tensor:
    mlp = visual.head.mlp
    return torch.nn.functional.gelu(x @ mlp.fc1.weight.T + mlp.fc1.bias) @ mlp.fc2.weight.T


def _timm_pool(visual: Any, x: Tensor) -> Tensor:
    return x @ visual.head.pool.proj.weight.T


def _resnet(visual: Any, x: Tensor) -> Tensor:
    return x @ visual.attnpool.c_proj.weight.T


def _conv_classifier(visual: Any, x: Tensor) -> Tensor:
    return x @ visual.trunk.get_classifier().weight.T


def _none(visual: Any, x: Tensor) -> Tensor:
    return x


TOWERS: dict[str, tuple[dict[str, Any], Projection, int]] = {
    "vit-token": (VIT, _parameter, 32),
    "vit-average": ({**VIT, "pool_type": "avg"}, _parameter, 32),
    "vit-norm-after-pool": ({**VIT, "pool_type": "avg", "final_ln_after_pool": True}, _parameter, 32),
    "vit-attention-pool": ({**VIT, **POOLED}, _parameter, 16),
    "vit-with-tokens": ({**VIT, "output_tokens": True}, _parameter, 32),
    "resnet": (RESNET, _resnet, 256),
    "timm-linear": (fakes.timm_tower("test_efficientnet", 64, timm_pool="avg"), _timm_linear, 256),
    "timm-vit": (fakes.timm_tower("test_vit", 160, timm_pool="", timm_proj="linear"), _timm_linear, 64),
    "timm-mlp": (fakes.timm_tower("test_resnet", 64, timm_proj="mlp"), _timm_mlp, 96),
    "timm-absolute-attention": (
        fakes.timm_tower("test_convnext", 160, timm_pool="abs_attn", timm_proj=""), _timm_pool, 64,
    ),
    "timm-rotary-attention": (
        fakes.timm_tower("test_convnext", 160, timm_pool="rot_attn", timm_proj=""), _timm_pool, 64,
    ),
    "timm-own-classifier": (
        fakes.timm_tower("test_convnext", 64, timm_pool="avg", timm_proj=None), _conv_classifier, 64,
    ),
    "timm-without-projection": (fakes.timm_tower("test_vit", 160, timm_pool="map", timm_proj="none"), _none, 64),
}  # fmt: skip


def _without_biases(visual: Any) -> None:
    """Unit features keep directions only: a bias in the projection could not be checked from them."""
    for part in (
        getattr(getattr(visual, "attnpool", None), "c_proj", None),
        getattr(getattr(getattr(visual, "head", None), "pool", None), "proj", None),
        visual.trunk.get_classifier() if hasattr(visual, "trunk") else None,
    ):
        if getattr(part, "bias", None) is not None:
            torch.nn.init.zeros_(part.bias)


@pytest.mark.parametrize("kind", TOWERS)
def test_the_projection_of_the_features_before_it_is_the_embedding(kind: str, tmp_path: Path) -> None:
    vision, project, width = TOWERS[kind]
    model = open_clip.create_model(fakes.register(tmp_path, f"features-{kind}", vision)).eval()
    visual: Any = model.visual
    _without_biases(visual)
    names = list(model.state_dict())
    images = torch.randn(3, 3, vision["image_size"], vision["image_size"])
    with torch.no_grad():
        before = image_features(model, images)
        after = image_features(model, images, projected=True)
        both = image_features_both(model, images)
        if kind == "timm-mlp":  # not linear: the features' own length is needed
            before_raw = visual.trunk(images)
            torch.testing.assert_close(normalize(before_raw, dim=-1), before)
            projected = project(visual, before_raw)
        else:
            projected = project(visual, before)
    assert before.shape == (3, width) and after.shape[0] == 3
    torch.testing.assert_close(normalize(projected, dim=-1), after, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(3))
    assert torch.equal(both[0], before) and torch.equal(both[1], after)
    assert list(model.state_dict()) == names
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["vit-token", "vit-with-tokens", "timm-linear", "timm-mlp"])
def test_both_kinds_of_features_come_from_one_pass_of_the_tower(kind: str, tmp_path: Path) -> None:
    vision, _, _ = TOWERS[kind]
    model = open_clip.create_model(fakes.register(tmp_path, f"both-{kind}", vision)).eval()
    visual: Any = model.visual
    passes: list[None] = []
    visual.register_forward_hook(lambda *_: passes.append(None))
    with torch.no_grad():
        image_features_both(model, torch.randn(2, 3, vision["image_size"], vision["image_size"]))
    assert len(passes) == 1


def test_text_features_are_the_unit_embeddings_that_the_model_itself_computes() -> None:
    clip = load_clip("test-vit")
    clip.model.eval()
    tokens = clip.tokenizer(["a chest film", "a head ct"])
    with torch.no_grad():
        features = text_features(clip.model, tokens)
        output = clip.model(torch.randn(2, 3, 32, 32), tokens)
    torch.testing.assert_close(features, output["text_features"])
    assert features.dtype == torch.float32 and features.shape == (2, 16)
