"""The image tower of an open_clip model as tokens: what a whole image says first, then its places."""

from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from training.errors import ConfigError

# open_clip builds no image tower without a text tower; this one is thrown away.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


class VisionTower(nn.Module):
    """Image tokens by open_clip's image tower, less what only serves its pooled embedding (projection, pooling head).

    - open_clip's ViT: CLS and patch tokens after the last norm (towers with attentional pooling: before it);
    - timm's ViTs: the same, register tokens left out; without a CLS token the mean of the patches is put first;
    - convolutional and windowed towers: the mean of the last grid, then the grid row by row.

    Args:
        visual: image tower of an open_clip model; it is taken apart.
        image_size: side of its square input, pixels.
    """

    def __init__(self, visual: Any, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        if hasattr(visual, "trunk"):
            self.tower = visual.trunk
            self.tower.reset_classifier(0, "")
            self.width = _keep_what_tokens_need(self.tower, image_size)
        elif hasattr(visual, "attnpool"):
            self.tower = visual
            self.width = int(visual.attnpool.k_proj.in_features)
            self.tower.attnpool = nn.Identity()
        else:
            self.tower = visual
            self.width = int(visual.class_embedding.shape[0])
            pooled_by_attention = visual.attn_pool is not None
            self.tower.prune_intermediate_layers(1, prune_norm=pooled_by_attention, prune_head=True)
            self.tower.attn_pool = None
        _save_every_buffer(self.tower)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float ``[B, 3, S, S]``, to tokens ``[B, N, width]``, the one for the whole image first.

        Raises:
            RuntimeError: from the tower, for images of a size that it does not take.
        """
        if hasattr(self.tower, "forward_features"):  # timm
            return _timm_tokens(self.tower, self.tower.forward_features(images))
        if not hasattr(self.tower, "class_embedding"):  # open_clip's ResNet
            grids = self.tower.forward_intermediates(images, indices=1, intermediates_only=True)
            return _with_mean(grids["image_intermediates"][-1].flatten(2).transpose(1, 2))
        found = self.tower.forward_intermediates(
            images,
            indices=1,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        return torch.cat([found["image_intermediates_prefix"][-1], found["image_intermediates"][-1]], dim=1)


def build_tower(clip: dict[str, Any]) -> VisionTower:
    """The tower with random weights, from its description alone: no files, no network.

    Args:
        clip: ``MedVQAConfig.clip``.

    Raises:
        ConfigError: it does not describe an image tower.
    """
    try:
        model_cfg = clip["model_cfg"]
        vision_cfg = {**model_cfg["vision_cfg"], "timm_model_pretrained": False}
        # On the CPU even where transformers builds on the meta device: some towers compute with what they build.
        with torch.device("cpu"):
            model = open_clip.CLIP(
                model_cfg["embed_dim"], vision_cfg, _NO_TEXT, quick_gelu=model_cfg.get("quick_gelu", False)
            )
            return VisionTower(model.visual, square(vision_cfg["image_size"]))
    except (
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        AssertionError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"clip does not describe an image tower of open_clip ({reason})") from error


def square(size: int | list[int] | tuple[int, int]) -> int:
    """The side of a square input.

    Raises:
        ValueError: it is not square.
    """
    sides = {int(side) for side in size} if isinstance(size, list | tuple) else {int(size)}
    if len(sides) != 1:
        raise ValueError(f"the image tower takes {size} pixels; only square inputs are supported")
    return sides.pop()


def _timm_tokens(trunk: Any, features: Tensor) -> Tensor:
    """``forward_features`` of a timm model, in any of its layouts, to tokens."""
    if features.dim() == 4:
        channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        return _with_mean(features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2))
    prefix = getattr(trunk, "num_prefix_tokens", 0)
    places = features[:, prefix:]
    if getattr(trunk, "has_class_token", prefix > 0):
        return torch.cat([features[:, :1], places], dim=1)
    return _with_mean(places)


def _with_mean(grid: Tensor) -> Tensor:
    return torch.cat([grid.mean(dim=1, keepdim=True), grid], dim=1)


@torch.no_grad()
def _keep_what_tokens_need(trunk: nn.Module, size: int) -> int:
    """Drop the parts of a timm model that ``forward_features`` passes by; returns the width of its tokens."""
    called: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, *_: called.add(module)) for module in trunk.modules()
    ]
    mode = trunk.training
    width = _timm_tokens(trunk, trunk.eval().forward_features(torch.zeros(1, 3, size, size))).shape[-1]  # type: ignore[operator]
    trunk.train(mode)
    for hook in hooks:
        hook.remove()
    for name, child in trunk.named_children():
        if any(True for _ in child.parameters()) and called.isdisjoint(child.modules()):
            setattr(trunk, name, nn.Identity())
    return width


def _save_every_buffer(tower: nn.Module) -> None:
    """transformers loads over empty memory: a buffer that the file does not hold would come back as noise."""
    for module in tower.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=True)
