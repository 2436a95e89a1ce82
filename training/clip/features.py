"""Features of an open_clip model, before or after the projection into the space that images and texts share."""

from typing import Any, cast

from torch import Tensor, nn


def image_features(model: nn.Module, images: Tensor, *, projected: bool = False) -> Tensor:
    """L2-normalised image features, ``[B, 3, H, W]`` to float32 ``[B, D]``.

    Args:
        model: an open_clip model in eval mode.
        images: preprocessed images.
        projected: False gives the features *before* the projection into the space shared with text, which
            image to image retrieval uses (methods.md §1.5, C). What that is depends on the tower: a ViT's
            pooled token (after ``ln_post``, before ``proj``), the attention-pooled vector of open_clip's ResNet
            (before ``c_proj``), timm's pooled trunk output. Other towers give the projected features.
    """
    visual: Any = model.visual
    features: Tensor = visual(images) if projected else _before_projection(visual, images)
    return nn.functional.normalize(features.float(), dim=-1)


def _before_projection(visual: Any, images: Tensor) -> Tensor:
    if hasattr(visual, "attnpool"):
        projection = visual.attnpool.c_proj
        width = projection.in_features
        unprojected = nn.Linear(width, width, bias=True).to(projection.weight)
        nn.init.eye_(unprojected.weight)
        nn.init.zeros_(unprojected.bias)
        return _with_part(visual.attnpool, "c_proj", unprojected, visual, images)
    if hasattr(visual, "trunk"):
        return cast(Tensor, visual.trunk(images))
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return _with_part(visual, "proj", None, visual, images)
    return cast(Tensor, visual(images))


def _with_part(owner: Any, name: str, part: nn.Module | None, tower: Any, images: Tensor) -> Tensor:
    """The tower's output while one of its parts is exchanged."""
    original = getattr(owner, name)
    setattr(owner, name, part)
    try:
        return cast(Tensor, tower(images))
    finally:
        setattr(owner, name, original)
