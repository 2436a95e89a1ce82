"""How a teacher computes: in float32, the same in every run, whatever the training around it does.

Torch's flags for this belong to the whole process, and an online teacher works in a thread beside the training: while
it held them, the training's own convolutions would follow them or not, as the threads happen to meet. So nothing is
set; convolutions, which cuDNN would round to TF32, are told one by one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_AXES = {F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """For this thread alone: no autocast, and on a GPU ``ExactConvolutions``."""
    with (
        torch.autocast(device.type, enabled=False),
        ExactConvolutions() if device.type == "cuda" else nullcontext(),
    ):
        yield


class ExactConvolutions(TorchFunctionMode):
    """Convolutions in full float32 by algorithms that give the same bits every time; modes are a thread's own."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        axes = _AXES.get(func)
        return func(*args, **(kwargs or {})) if axes is None else _convolve(axes, *args, **(kwargs or {}))


def _convolve(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv1d``, ``conv2d`` or ``conv3d`` of a batch ``[B, C, …]``."""
    dilation = _each(axes, dilation)
    if padding == "same":
        around = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        # F.pad begins at the last axis; of an odd number the larger half comes last.
        input = F.pad(input, [half for total in around[::-1] for half in (total // 2, total - total // 2)])
    result: Tensor = torch.ops.aten._convolution(
        input, weight, bias, _each(axes, stride), _each(axes, 0 if isinstance(padding, str) else padding), dilation,
        False, [0] * axes, groups, benchmark=False, deterministic=True, cudnn_enabled=True, allow_tf32=False,
    )  # fmt: skip
    return result


def _each(axes: int, value: int | Sequence[int]) -> list[int]:
    """One number for each axis; a single one stands for all."""
    given = [value] if isinstance(value, int) else list(value)
    return given * axes if len(given) == 1 else given
