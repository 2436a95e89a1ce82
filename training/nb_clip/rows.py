"""Store rows of a batch over all processes."""

import torch
from accelerate import Accelerator
from torch import Tensor

from training.errors import ShapeError


def gather_rows(accelerator: Accelerator, rows: Tensor, share: int) -> Tensor:
    """Store rows of all processes in rank order; every process has to call it.

    Args:
        accelerator: of this process.
        rows: store rows of this process's share of the batch, int64 ``[B_local]``.
        share: what B_local has to be on every process.

    Returns:
        int64 ``[B_global]``, on the CPU.

    Raises:
        ShapeError: on all processes, if one of them has another number of rows.
    """
    # The count travels with the rows: a gather of unequal shapes may hang or mix up rows instead of failing.
    message = torch.full((1, share + 1), -1, dtype=torch.int64)
    message[0, 0] = len(rows)
    message[0, 1 : 1 + len(rows)] = rows[:share].cpu()
    gathered: Tensor = accelerator.gather(message.to(accelerator.device)).cpu()
    counts = gathered[:, 0].tolist()
    if counts != [share] * accelerator.num_processes:
        raise ShapeError(
            f"the processes hold {', '.join(map(str, counts))} images of this batch, not {share} each: the global "
            "batch must divide evenly"
        )
    return gathered[:, 1:].reshape(-1)
