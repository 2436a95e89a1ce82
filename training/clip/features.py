"""Features of an open_clip model, before or after the projection into the space that images and texts share."""

from typing import Any

from torch import Tensor, nn


def image_features(model: nn.Module, images: Tensor, *, projected: bool = False) -> Tensor:
    """L2-normalised image features, ``[B, 3, H, W]`` to float32 ``[B, D]``.

    Args:
        model: an open_clip model in eval mode.
        images: preprocessed images.
        projected: False gives the features *before* the projection into the space shared with text, which
            image to image retrieval uses (methods.md §1.5, C). They are what the tower's last projection is applied
            to: a ViT's pooled vector after ``ln_post`` (before ``proj``); the attention-pooled vector of open_clip's
            ResNet (before ``c_proj``) and of timm towers with attention pooling; the pooled output of timm's trunk
            (before ``head.proj``, ``head.mlp`` or the trunk's own classifier). A tower that ends without a
            projection, such as SigLIP's, gives the same features either way.
    """
    visual: Any = model.visual
    features = _first(visual(images)) if projected else _around_projection(visual, images)[0]
    return nn.functional.normalize(features.float(), dim=-1)


def image_features_both(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """``image_features`` before and after the projection, float32 ``[B, D]`` each, bit for bit.

    The tower runs twice where its projection cannot be seen from outside: open_clip's ResNets, attention pooling of
    timm.
    """
    visual: Any = model.visual
    before, after = _around_projection(visual, images)
    after = _first(visual(images)) if after is None else after
    return nn.functional.normalize(before.float(), dim=-1), nn.functional.normalize(after.float(), dim=-1)


def text_features(model: nn.Module, tokens: Tensor) -> Tensor:
    """L2-normalised text features in the space shared with images, int64 ``[B, L]`` to float32 ``[B, D]``.

    Args:
        model: an open_clip model in eval mode.
        tokens: what its tokenizer made of captions.
    """
    encoder: Any = model
    return nn.functional.normalize(_first(encoder.encode_text(tokens)).float(), dim=-1)


def _around_projection(visual: Any, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features before the projection, and after it where one run of the tower shows both."""
    if hasattr(visual, "attnpool"):
        # The projection's weights are used without calling it: an identity in its place shows its input.
        projection = visual.attnpool.c_proj
        width = projection.in_features
        unprojected = nn.Linear(width, width, bias=True).to(projection.weight)
        nn.init.eye_(unprojected.weight)
        nn.init.zeros_(unprojected.bias)
        return _with_part(visual.attnpool, "c_proj", unprojected, visual, images), None
    if hasattr(visual, "trunk"):
        head = visual.head
        added = [getattr(head, name) for name in ("mlp", "proj") if hasattr(head, name)]  # by open_clip
        if not added and hasattr(head, "pool"):
            return head.pool(visual.trunk(images), pre_logits=True), None
        part = added[0] if added else visual.trunk.get_classifier()
        if isinstance(part, nn.Module) and not isinstance(part, nn.Identity):
            return _input_and_output(part, visual, images)
    elif isinstance(getattr(visual, "proj", None), nn.Parameter):
        before = _with_part(visual, "proj", None, visual, images)
        return before, before @ visual.proj  # the last thing that open_clip's own forward does
    features = _first(visual(images))
    return features, features


def _input_and_output(part: nn.Module, tower: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Input of one of the tower's parts, ``[B, D]``, and the tower's output."""
    seen: list[Tensor] = []
    handle = part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        output = _first(tower(images))
    finally:
        handle.remove()
    return seen[-1].flatten(1), output


def _with_part(owner: Any, name: str, part: nn.Module | None, tower: Any, images: Tensor) -> Tensor:
    """The tower's output while one of its parts is exchanged."""
    original = getattr(owner, name)
    setattr(owner, name, part)
    try:
        return _first(tower(images))
    finally:
        setattr(owner, name, original)


def _first(output: Any) -> Tensor:
    """The pooled features; towers configured to give their tokens as well return a pair."""
    features: Tensor = output[0] if isinstance(output, tuple) else output
    return features
