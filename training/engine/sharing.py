"""Rows shared out: to the micro-batches of a step; to a run's processes, so that an evaluation costs each a part.

Processes take whole batches: each row is computed beside the same others as by one process, and its numbers are the
same.
"""

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray


def rows_of_process(count: int, batch_size: int, accelerator: Accelerator) -> NDArray[np.int64]:
    """This process's share of ``count`` rows, int64, ascending: every N-th batch of ``batch_size`` of N processes."""
    batches = np.arange(count) // batch_size
    return np.flatnonzero(batches % accelerator.num_processes == accelerator.process_index).astype(np.int64)


def gather_shares(rows: NDArray[np.int64], values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Values of all processes' rows, in the order of the rows; every process has to call it.

    Args:
        rows: of this process, from ``rows_of_process``.
        values: one per row of them, ``[R, …]``; their shape does not count where there is no row.
        count: all rows, at least 1.

    Returns:
        float32 ``[count, …]``, on every process.
    """
    parts = [(index, found) for index, found in gather_object([(rows, values)]) if len(index)]
    out = np.empty((count, *parts[0][1].shape[1:]), dtype=np.float32)
    for index, found in parts:
        out[index] = found
    return out


def slices(size: int, width: int | None) -> list[tuple[int, int]]:
    """Start and stop of each micro-batch of ``width`` images, the last one the rest; one slice if width is None."""
    width = size if width is None else min(width, size)
    return [(start, min(start + width, size)) for start in range(0, size, width)]
