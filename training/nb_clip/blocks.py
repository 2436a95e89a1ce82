"""S of a batch, for both directions: on the CPU by the store, or on the GPU from the store's factors kept there.

Factors are what is kept (one row per image, sparse over concepts or dense), never S of all images. On a GPU a block of
8,192 × 8,192 is a few milliseconds of work that needs no transfer; factors that exceed ``loss.device_factors_mb`` stay
on the host, where the store computes the block and only that travels.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from kg_targets.store import TargetStore

_SCRATCH_BYTES = 1 << 28
"""Memory for the dense columns that a sparse block is multiplied with; wider blocks are computed in pieces."""


class Blocks(Protocol):
    """Similarities between the store rows of this process and those of all processes."""

    def __call__(self, local: Tensor, everyone: Tensor) -> tuple[Tensor, Tensor]:
        """S[images_local, texts_global] and S[images_global, texts_local]ᵀ, both float32 ``[B_local, B_global]``.

        Args:
            local: store rows, int64 ``[B_local]``, on the CPU.
            everyone: store rows, int64 ``[B_global]``, on the CPU.

        Returns:
            The rows of image→text and of text→image; one and the same tensor where S is symmetric.
        """
        ...


class HostBlocks:
    """The store's own ``block``, computed on the CPU and taken to ``device``."""

    def __init__(self, store: TargetStore, device: torch.device) -> None:
        self.store, self.device = store, device

    def __call__(self, local: Tensor, everyone: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Blocks``."""
        rows, columns = local.numpy(), everyone.numpy()
        if np.array_equal(rows, columns):
            image_text = torch.from_numpy(self.store.block(rows)).to(self.device)
            return image_text, image_text.T
        image_text = torch.from_numpy(self.store.block(rows, columns)).to(self.device)
        return image_text, torch.from_numpy(self.store.block(columns, rows)).to(self.device).T


class DeviceBlocks:
    """S = K·Kᵀ from the factors K of all images, kept on ``device``; equals the store's block to 1e-6.

    A product of one matrix with itself is symmetric, so one block serves both directions. Sums of float32 need
    float32: keep torch's TF32 off for matrix products (its default).
    """

    def __init__(self, factors: sparse.csr_array | NDArray[np.float32], device: torch.device) -> None:
        self.device = device
        self.columns = int(factors.shape[1])
        self.dense: Tensor | None = None
        if isinstance(factors, np.ndarray):
            self.dense = torch.from_numpy(np.ascontiguousarray(factors)).to(device)
            return
        self.starts = torch.from_numpy(factors.indptr.astype(np.int64))  # on the CPU, where rows are chosen
        self.index = torch.from_numpy(factors.indices.astype(np.int32)).to(device)
        self.value = torch.from_numpy(factors.data.astype(np.float32)).to(device)

    def __call__(self, local: Tensor, everyone: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Blocks``."""
        rows, columns = local.to(self.device), everyone.to(self.device)
        block = (
            self.dense[rows] @ self.dense[columns].T
            if self.dense is not None
            else self._sparse(local, everyone)
        )
        block.clamp_(-1.0, 1.0).masked_fill_(rows[:, None] == columns[None, :], 1.0)
        return block, block

    def _sparse(self, local: Tensor, everyone: Tensor) -> Tensor:
        """Rows of K, as bags of (concept, weight), times a few dense columns of Kᵀ at a time."""
        lengths, index, value = self._bags(local)
        offsets = (lengths.cumsum(0) - lengths).to(self.device, torch.int32)
        width = max(1, _SCRATCH_BYTES // (4 * self.columns))
        pieces = [
            # Every entry is one sum in a fixed order: the same bits in every run, unlike a sparse matrix product.
            torch.nn.functional.embedding_bag(
                index,
                self._dense_columns(everyone[at : at + width]),
                offsets,
                mode="sum",
                per_sample_weights=value,
            )
            for at in range(0, len(everyone), width)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _bags(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Number of concepts of each row (on the CPU), and the concepts and weights of all of them in order."""
        first = self.starts[rows]
        lengths = self.starts[rows + 1] - first
        ends = lengths.cumsum(0)
        place = torch.arange(int(ends[-1])) + (first - ends + lengths).repeat_interleave(lengths)
        place = place.to(self.device)
        return lengths, self.index[place], self.value[place]

    def _dense_columns(self, rows: Tensor) -> Tensor:
        """K[rows]ᵀ, ``[concepts, R]``."""
        lengths, index, value = self._bags(rows)
        column = torch.arange(len(rows)).repeat_interleave(lengths).to(self.device)
        dense = torch.zeros(self.columns, len(rows), device=self.device)
        dense[index.long(), column] = value
        return dense


def factor_bytes(factors: sparse.csr_array | NDArray[np.float32]) -> int:
    """Bytes that ``DeviceBlocks`` keeps on the device."""
    if isinstance(factors, np.ndarray):
        return factors.nbytes
    return int(factors.data.nbytes + factors.indices.nbytes)


def make_blocks(store: TargetStore, device: torch.device, budget_mb: int) -> Blocks:
    """Factors on the device where it is a GPU and they fit, else blocks from the host.

    Args:
        store: whose images they are.
        device: where blocks are wanted.
        budget_mb: most memory for factors on the device, MB (10⁶ bytes).
    """
    if device.type == "cuda" and factor_bytes(store.factors) <= budget_mb * 10**6:
        return DeviceBlocks(store.factors, device)
    return HostBlocks(store, device)
