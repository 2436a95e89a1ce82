"""Targets of a batch: store rows to similarities S of both directions, and S to targets by the policy.

S comes from the store on the CPU, or on the GPU from the store's factors kept there. Factors are what is kept (one
row per image, sparse over concepts, dense or both), never S of all images. On a GPU a block of 8,192 × 8,192 is a few
milliseconds of work that needs no transfer; factors that exceed ``loss.device_factors_mb`` stay on the host, where the
store computes the block and only that travels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from kg_targets.losses.policies import (
    Pairs,
    identity_policy,
    mix_identity,
    pair_structure,
    similarity_targets,
)
from kg_targets.losses.registry import LOSSES, POLICIES, bind_policy
from kg_targets.store import TargetStore
from kg_targets.store.factors import AnyFactors, parts_of
from kg_targets.store.schema import KNOWLEDGE
from training.errors import ConfigError
from training.nb_clip.config import LossConfig, PolicyConfig

_SCRATCH_BYTES = 1 << 28
"""Memory for the dense columns that a sparse block is multiplied with; wider blocks are computed in pieces."""


Blocks = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Store rows of this process and of all, int64 ``[B_local]`` and ``[B_global]`` on the CPU, to S[images_local,
texts_global] and S[images_global, texts_local]ᵀ, both float32 ``[B_local, B_global]``: the rows of image→text and of
text→image; one and the same tensor where S is symmetric."""


class HostBlocks:
    """The store's own ``block``, computed on the CPU and taken to ``device``; that of knowledge is symmetric."""

    def __init__(self, store: TargetStore, device: torch.device) -> None:
        self.store, self.device, self.symmetric = store, device, store.kind == KNOWLEDGE

    def __call__(self, rows_local: Tensor, rows_global: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Blocks``."""
        rows, columns = rows_local.numpy(), rows_global.numpy()
        same = np.array_equal(rows, columns)
        image_text = self._taken(self.store.block(rows, None if same else columns))
        if self.symmetric:
            return image_text, image_text
        return image_text, (image_text if same else self._taken(self.store.block(columns, rows))).T

    def _taken(self, block: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(block).to(self.device, non_blocking=True)


class DeviceBlocks:
    """S = K·Kᵀ from the factors K of all images, kept on ``device``; equals the store's block to 1e-6.

    A product of one matrix with itself is symmetric, so one block serves both directions. Sums of float32 need
    float32: keep torch's TF32 off for matrix products (its default). Of mixed factors, S is the sum over both parts.
    """

    def __init__(self, factors: AnyFactors, device: torch.device) -> None:
        self.device = device
        self.parts = [
            _DensePart(part, device) if isinstance(part, np.ndarray) else _SparsePart(part, device)
            for part in parts_of(factors)
        ]

    def __call__(self, rows_local: Tensor, rows_global: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Blocks``."""
        rows, columns = (rows.to(self.device, non_blocking=True) for rows in (rows_local, rows_global))
        block = self.parts[0](rows_local, rows_global)
        for part in self.parts[1:]:
            block += part(rows_local, rows_global)
        block.clamp_(-1.0, 1.0).masked_fill_(rows[:, None] == columns[None, :], 1.0)
        return block, block


class _DensePart:
    """Products of dense columns."""

    def __init__(self, factors: NDArray[np.float32], device: torch.device) -> None:
        self.factors = torch.tensor(factors).to(device)

    def __call__(self, rows_local: Tensor, rows_global: Tensor) -> Tensor:
        rows, columns = (
            self.factors[rows.to(self.factors.device, non_blocking=True)]
            for rows in (rows_local, rows_global)
        )
        return rows @ columns.T


class _SparsePart:
    """Products of sparse columns."""

    def __init__(self, factors: sparse.csr_array, device: torch.device) -> None:
        self.device, self.columns = device, int(factors.shape[1])
        self.starts = torch.from_numpy(factors.indptr.astype(np.int64))  # on the CPU, where rows are chosen
        self.index = torch.from_numpy(factors.indices.astype(np.int32)).to(device)
        self.value = torch.from_numpy(factors.data.astype(np.float32)).to(device)

    def __call__(self, rows_local: Tensor, rows_global: Tensor) -> Tensor:
        """Rows of K, as bags of (concept, weight), times a few dense columns of Kᵀ at a time."""
        lengths, index, value = self._bags(rows_local)
        offsets = (lengths.cumsum(0) - lengths).to(self.device, torch.int32, non_blocking=True)
        width = max(1, _SCRATCH_BYTES // (4 * self.columns))
        pieces = [
            # Every entry is one sum in a fixed order: the same bits in every run, unlike a sparse matrix product.
            torch.nn.functional.embedding_bag(
                index,
                self._dense_columns(rows_global[at : at + width]),
                offsets,
                mode="sum",
                per_sample_weights=value,
            )
            for at in range(0, len(rows_global), width)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def _bags(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Number of concepts of each row (on the CPU), and the concepts and weights of all of them in order."""
        first = self.starts[rows]
        lengths = self.starts[rows + 1] - first
        ends = lengths.cumsum(0)
        place = torch.arange(int(ends[-1])) + (first - ends + lengths).repeat_interleave(lengths)
        place = place.to(self.device, non_blocking=True)
        return lengths, self.index[place], self.value[place]

    def _dense_columns(self, rows: Tensor) -> Tensor:
        """K[rows]ᵀ, ``[concepts, R]``."""
        lengths, index, value = self._bags(rows)
        column = torch.arange(len(rows)).repeat_interleave(lengths).to(self.device, non_blocking=True)
        dense = torch.zeros(self.columns, len(rows), device=self.device)
        dense[index.long(), column] = value
        return dense


def factor_bytes(factors: AnyFactors) -> int:
    """Bytes that ``DeviceBlocks`` keeps on the device."""
    return sum(
        part.nbytes if isinstance(part, np.ndarray) else int(part.data.nbytes + part.indices.nbytes)
        for part in parts_of(factors)
    )


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


@dataclass(frozen=True)
class Targets:
    """The targets of a step's logits; all ``[B_local, B_global]``."""

    i2t: Tensor
    """Distributions over each row, or similarities, as the loss wants them."""
    t2i: Tensor
    mask: Tensor | None
    """Pairs of one case and excluded ones, which neither logits nor targets count; None where nothing is masked."""

    def rows(self, start: int, stop: int) -> "Targets":
        """Those of some rows, as ``RowTargets``."""
        i2t = self.i2t[start:stop]
        t2i = i2t if self.t2i is self.i2t else self.t2i[start:stop]
        return Targets(i2t, t2i, None if self.mask is None else self.mask[start:stop])


RowTargets = Callable[[int, int], Targets]
"""Start and stop to the targets of these rows of a process's batch, ``[stop − start, B_global]``."""


class TargetBuilder:
    """From row numbers to targets, by the store's similarity and the chosen policy.

    It talks to no other process and keeps nothing between calls, so that a thread can prepare the next step's targets.

    Args:
        store: similarities, cases, and which images are known.
        loss: what kind of targets it wants.
        policy: how similarities become distributions.
        device: where targets are computed and returned; a GPU keeps the store's factors, where they fit.

    Raises:
        ConfigError: the store suggests a threshold that the policy cannot use.
    """

    def __init__(
        self,
        store: TargetStore,
        loss: LossConfig,
        policy: PolicyConfig,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    ) -> None:
        threshold = policy.used_threshold(store.threshold)
        self.kind = LOSSES[loss.name].targets
        uses_threshold = "threshold" in POLICIES[policy.name].parameters
        if self.kind == "policy" and uses_threshold and not -1.0 <= threshold < 1.0:
            raise ConfigError(
                f"policy.threshold: {store.path} suggests {threshold}; set --policy.threshold below 1"
            )
        self.grade = (
            similarity_targets
            if self.kind == "similarity"
            else bind_policy(policy.name, policy.used_temperature, policy.alpha, threshold, policy.saturation)
        )
        self.device = device
        self.known = torch.as_tensor(store.known)
        self.by_case = self.kind == "policy" and POLICIES[policy.name].within_case
        needed = loss.mask_same_case or self.by_case
        self.cases = torch.as_tensor(store.cases) if needed else None
        self.exclude = store.threshold if loss.exclude_related == "threshold" else loss.exclude_related
        unread = self.kind == "pairs" and self.exclude is None
        self.blocks = None if unread else make_blocks(store, device, loss.device_factors_mb)

    def __call__(
        self,
        rows_local: Tensor,
        rows_global: Tensor,
        offset: int,
        identity_mix: float = 0.0,
        blocks: tuple[Tensor, Tensor] | None = None,
    ) -> Targets:
        """Targets of this process's rows, or of some of them, against all ranks'.

        Args:
            rows_local: store rows of this process, int64 ``[B_local]``.
            rows_global: store rows of all processes in rank order, int64 ``[B_global]``.
            offset: column of row 0's positive, = rank · B_local for the first of the process's rows.
            identity_mix: weight of the identity in soft targets, in [0, 1].
            blocks: their similarities, where they are there already.

        Returns:
            Targets on ``device``; ``t2i`` is the same tensor as ``i2t`` where S is symmetric.
        """
        rows_local, rows_global = rows_local.cpu(), rows_global.cpu()
        same = self._same_case(rows_local, rows_global, offset)
        mask = None if self.by_case else same
        if self.blocks is None:
            shape = torch.zeros(len(rows_local), len(rows_global), device=self.device)
            identity = identity_policy(shape, pairs=pair_structure(shape, offset))
            return Targets(identity, identity, mask)
        # Texts are the rows of text→image: S[images_global, texts_local]ᵀ, not the transpose of P.
        image_text, text_image = self.blocks(rows_local, rows_global) if blocks is None else blocks
        if self.exclude is not None:
            related = (image_text > self.exclude) | (text_image > self.exclude)
            mask = self._with_related(mask, same, related, offset)
        known_rows, known_columns = (
            self.known[rows_local].to(self.device, non_blocking=True),
            self.known[rows_global].to(self.device, non_blocking=True),
        )
        # Known rows, known columns and cases belong to pairs of store rows, so both directions share them.
        pairs = pair_structure(image_text, offset, known_rows, known_columns, mask)
        if self.kind == "pairs":
            identity = identity_policy(image_text, pairs=pairs)
            return Targets(identity, identity, mask)
        if self.by_case:
            pairs = Pairs(pairs.positive, torch.zeros_like(pairs.soft_positives) if same is None else same)

        def graded(similarity: Tensor) -> Tensor:
            targets = self.grade(similarity, pairs=pairs)
            return mix_identity(targets, identity_mix, pairs=pairs) if identity_mix > 0.0 else targets

        i2t = graded(image_text)
        return Targets(i2t, i2t if text_image is image_text else graded(text_image), mask)

    def by_rows(
        self, rows_local: Tensor, rows_global: Tensor, offset: int, identity_mix: float = 0.0
    ) -> RowTargets:
        """The same for some rows at a time, computed when they are asked for.

        Similarities that the CPU computes for a GPU are computed here and now: in a thread, while the GPU is busy.
        """
        whole = None
        if isinstance(self.blocks, HostBlocks) and self.device.type != "cpu":
            whole = self.blocks(rows_local.cpu(), rows_global.cpu())

        def targets(start: int, stop: int) -> Targets:
            blocks = None
            if whole is not None:
                image_text = whole[0][start:stop]
                blocks = image_text, image_text if whole[1] is whole[0] else whole[1][start:stop]
            return self(rows_local[start:stop], rows_global, offset + start, identity_mix, blocks)

        return targets

    def _with_related(self, mask: Tensor | None, same: Tensor | None, related: Tensor, offset: int) -> Tensor:
        """The mask with the pairs that are similar in either direction, which every process finds alike.

        Pairs of one case are left to the mask: ``same_case`` gives them weight.
        """
        related.diagonal(offset).fill_(False)
        if same is not None:
            related &= ~same
        return related if mask is None else related | mask

    def _same_case(self, rows_local: Tensor, rows_global: Tensor, offset: int) -> Tensor | None:
        """Pairs of one case other than the true ones, bool ``[B_local, B_global]``; None if there are none."""
        if self.cases is None:
            return None
        rows, columns = self.cases[rows_local], self.cases[rows_global]
        if len(set(columns.tolist())) == len(columns):
            return None  # the usual batch: no mask to compute, and none for the loss to look at
        rows, columns = (codes.to(self.device, non_blocking=True) for codes in (rows, columns))
        same: Tensor = rows[:, None] == columns[None, :]
        same.diagonal(offset).fill_(False)
        return same
