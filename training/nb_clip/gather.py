"""Features of all processes, with their gradient.

``accelerator.gather`` loses the gradient silently. open_clip's ``gather_features`` keeps it, by a torch function that
torch 2.15 calls deprecated; this is the same with one exchange for images and texts together.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def gather_features(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Everybody's features in rank order; every process has to call it, and to go backward through it.

    A process's features matter to the losses of all processes: their gradient is the sum of what each of them found.

    Args:
        image: this process's, ``[B_local, D]``; B_local and D are the same on every process.
        text: likewise, of the same shape and dtype.

    Returns:
        Images and texts, ``[B_global, D]``.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return image, text
    both: Tensor = _Gather.apply(torch.cat([image, text], dim=1))
    return both[:, : image.shape[1]], both[:, image.shape[1] :]


class _Gather(torch.autograd.Function):
    """Concatenation over processes; backward, the sum over processes of the gradients of this one's part."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.rows = len(features)
        parts = [torch.empty_like(features) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        # Reduce-scatter would send half as much, but the gloo of older torch has none.
        distributed.all_reduce(gradient)
        start = ctx.rows * distributed.get_rank()
        return gradient[start : start + ctx.rows]
