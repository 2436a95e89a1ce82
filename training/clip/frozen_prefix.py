"""A model split where learning begins: its frozen prefix can be computed once, what learns is a model of its own.

Both halves share their modules, and so their weights, with the whole model: training the second half trains the whole,
which is what is saved. The split lies before the first layer that learns.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training.errors import ConfigError, one_line

_CHECKED = 1e-4
"""Largest deviation of a split tower from the whole one, as a share of its largest feature."""


@dataclass(frozen=True)
class SplitClip:
    """The halves of a CLIP model."""

    image_part: nn.Module
    """Frozen: normalised images ``[B, 3, S, S]`` to what the learning part of the image tower takes."""
    text_part: nn.Module | None
    """Frozen: tokens ``[B, L]`` to what the learning part of the text tower takes; None: that one takes tokens."""
    learner: nn.Module
    """CLIP again, of what the frozen parts give: called with both, it returns what the whole model returns."""


def split_frozen_prefix(model: nn.Module, image_size: int) -> SplitClip:
    """Split a model whose image tower is locked, wholly or up to its last groups; the text tower if it is all locked.

    Args:
        model: an open_clip model after ``training.clip.freeze.freeze``, with an image tower of timm.
        image_size: side of its input, pixels.

    Raises:
        ConfigError: the image tower is not one that can be split there.
    """
    towers: Any = model
    trunk = getattr(towers.visual, "trunk", None)
    if trunk is None:
        raise ConfigError(
            "data.cached_views needs an image tower of timm; this one is open_clip's own: set --data.cached_views 0"
        )
    image_part, rest = _split_trunk(trunk)
    visual = _replaced(towers.visual, trunk=rest)
    _must_agree(towers.visual, image_part, visual, image_size)
    text: Any = getattr(towers, "text", None)
    if text is not None and hasattr(text, "pooler") and not _learns(text.transformer):
        text_part = _replaced(text, proj=nn.Identity())
        return SplitClip(image_part, text_part, _replaced(model, visual=visual, text=text.proj))
    return SplitClip(image_part, None, _replaced(model, visual=visual))


def _split_trunk(trunk: Any) -> tuple[nn.Module, nn.Module]:
    """The frozen beginning of a trunk, and the trunk without it."""
    if not _learns(trunk):
        return trunk, nn.Identity()
    cuttable = all(hasattr(trunk, name) for name in ("conv_stem", "bn1", "blocks"))
    if not cuttable or _learns(trunk.conv_stem) or _learns(trunk.bn1):
        raise ConfigError(
            "data.cached_views needs an image tower whose first layers are frozen, and can split EfficientNets, "
            "MobileNets and wholly locked towers: set --model.lock_image true (for others without unlocked groups), "
            "or --data.cached_views 0"
        )
    frozen: list[nn.Module] = []
    stages: list[nn.Module] = []
    for stage in trunk.blocks:
        layers = list(stage) if isinstance(stage, nn.Sequential) else [stage]
        while layers and not stages and not _learns(layers[0]):
            frozen.append(layers.pop(0))
        if layers:
            stages.append(nn.Sequential(*layers))
    rest = _replaced(trunk, conv_stem=nn.Identity(), bn1=nn.Identity(), blocks=nn.Sequential(*stages))
    return nn.Sequential(trunk.conv_stem, trunk.bn1, *frozen).eval(), rest


def _learns(module: nn.Module) -> bool:
    return any(value.requires_grad for value in module.parameters())


def _replaced(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """The module with other children, sharing all that is left; ``train()`` works on it as on any."""
    clone = copy.copy(module)
    clone.__dict__.pop("train", None)  # one that is held in eval mode is bound to the original
    clone._modules = {**module._modules, **parts}
    return clone


@torch.no_grad()
def _must_agree(whole: Any, image_part: nn.Module, rest: nn.Module, size: int) -> None:
    """Compare on noise: a trunk may do more with its input than run its layers one after the other."""
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    modes = [(module, module.training) for module in whole.modules()]
    whole.eval()
    try:
        expected = whole(images)
        found = rest.eval()(image_part(images))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"data.cached_views: this image tower cannot be split ({one_line(error)})"
        ) from error
    finally:
        for module, mode in modes:
            module.training = mode
    if expected.shape != found.shape or (expected - found).abs().max() > _CHECKED * expected.abs().max():
        raise ConfigError("data.cached_views: this image tower computes more than its layers in their order")
