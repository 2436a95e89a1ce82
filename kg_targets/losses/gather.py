"""Features of all processes, with their gradient, and the rows of a store that they belong to.

``accelerator.gather`` loses the gradient silently. open_clip's ``gather_features`` keeps it, by a torch function that
torch 2.15 calls deprecated; this is the same with one exchange for images and texts together.
"""

from typing import Any

import torch
from torch import Tensor, distributed

from kg_targets.errors import ShapeError


def gather_features(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """All ranks' features in rank order; every process has to call it, and to go backward through it.

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


def gather_rows(rows: Tensor, share: int, device: torch.device | None = None) -> Tensor:
    """Store rows of all processes in rank order; every process has to call it.

    Args:
        rows: store rows of this process's share of the batch, int64 ``[B_local]``.
        share: what B_local has to be on every process.
        device: of this process, where its backend exchanges tensors; the CPU if omitted.

    Returns:
        int64 ``[B_global]``, on the CPU.

    Raises:
        ShapeError: on all processes, if one of them has another number of rows.
    """
    # The count travels with the rows: a gather of unequal shapes may hang or mix up rows instead of failing.
    message = torch.full((1, share + 1), -1, dtype=torch.int64)
    message[0, 0] = len(rows)
    message[0, 1 : 1 + len(rows)] = rows[:share].cpu()
    parts = [message]
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        message = message.to(device)
        parts = [torch.empty_like(message) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, message)
    gathered = torch.cat(parts).cpu()
    counts = gathered[:, 0].tolist()
    if counts != [share] * len(parts):
        raise ShapeError(
            f"the processes hold {', '.join(map(str, counts))} images of this batch, not {share} each: the global "
            "batch must divide evenly"
        )
    return gathered[:, 1:].reshape(-1)


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
