"""Soft labels P of a step, by a frozen teacher, by the knowledge graph, or by both (methods.md §2.2).

| source          | row i of P                                              | mark              |
|-----------------|---------------------------------------------------------|-------------------|
| none            | 1 at the positive                                       | S, CLIP's own     |
| a model teacher | softmax(s·A_i·Bᵀ + λ·e_i): `teacher_targets`            | S, Eq. 5; C       |
| the graph       | a policy of `kg_targets.losses` over the store's S      | S, R              |
| several of them | Σ w·P / Σ w: `LabelBuilder`                             | R                 |

Every P is float32 ``[B_local, B_global]``, its rows sum to 1, and row i's positive stands in column ``offset + i``:
on the second of two processes of 32 items, column 32 belongs to row 0.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.losses.policies import Pairs, pair_structure
from kg_targets.losses.registry import POLICIES, bind_policy
from kg_targets.store import TargetStore, TeacherStore
from training.checks import one_of
from training.data.metadata import describe_data
from training.data.sources import ImageSource
from training.errors import ConfigError, DataError, ShapeError
from training.med_vqa.pretrain.config import EQ5, SPACES, PretrainLossConfig, SoftLabelConfig
from training.med_vqa.pretrain.config import POLICIES as NAMES
from training.nb_clip.batch_targets import TargetBuilder, make_blocks
from training.nb_clip.config import LossConfig, PolicyConfig
from training.teachers.online import OnlineTeacher
from training.teachers.registry import open_teacher

READ_BY = {EQ5: ("temperature",), **{name: POLICIES[name].parameters for name in NAMES if name != EQ5}}
"""Fields of an entry that each policy reads."""


@dataclass(frozen=True)
class LabelSource:
    """One entry of ``soft_labels``."""

    config: SoftLabelConfig
    store: TargetStore | OnlineTeacher
    """Blocks of similarities, their ``kind`` (knowledge or teacher) and their ``scale``."""
    known: NDArray[np.bool_]
    """Rows that it knows, bool ``[N]``."""
    digest: str
    """Digest of all that its blocks follow from."""
    name: str
    """For a person: no path."""

    @property
    def policy(self) -> str:
        """Policy that turns its similarities into distributions."""
        return self.config.policy or (EQ5 if self.store.kind == "teacher" else "evidence")

    def metadata(self) -> dict[str, Any]:
        """For OUTPUT/data.json."""
        described = describe_data(self.store) if isinstance(self.store, TargetStore) else {}
        return {
            "name": self.name,
            "policy": self.policy,
            "weight": self.config.weight,
            "digest": self.digest,
            **described,
        }


def open_label_sources(
    entries: Sequence[SoftLabelConfig], loss: PretrainLossConfig, data: TargetStore, images: ImageSource
) -> list[LabelSource]:
    """All entries of ``soft_labels``; arguments and errors as of ``open_label_source``.

    Args:
        loss: whose λ needs an entry that reads it.

    Raises:
        ConfigError: a field is set that nothing reads.
    """
    sources = [open_label_source(entry, data, images) for entry in entries]
    standard = PretrainLossConfig()
    for name in ("lambda_weight", "lambda_space"):
        unread = getattr(loss, name) != getattr(standard, name)
        if unread and not any(source.policy == EQ5 for source in sources):
            raise ConfigError(
                f"loss.{name} {getattr(loss, name)} changes nothing, since no entry of soft_labels has policy {EQ5}: "
                "leave it out, or name a teacher"
            )
    return sources


def open_label_source(config: SoftLabelConfig, data: TargetStore, images: ImageSource) -> LabelSource:
    """A store of the same images and captions as the data, or a teacher that will be asked about them.

    Args:
        config: the entry.
        data: the store that is trained on.
        images: its images, which an online teacher looks at.

    Raises:
        StoreError: there is no such store, or its ids, captions or dimensions are not those of the data.
        DataError: a teacher's store holds numbers that are not finite.
        ConfigError: there is no such teacher, or a field is set that its policy does not read.
        CheckpointError: its weights are missing or damaged.
    """
    if config.teacher:
        gpu = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        teacher = open_teacher(config.teacher, gpu if torch.cuda.is_available() else "cpu")
        online = OnlineTeacher(teacher, data, images if teacher.reads_images else None)
        everything = np.ones(len(data), dtype=bool)
        source = LabelSource(config, online, everything, teacher.digest, f"{teacher.name} (online)")
    else:
        store = TargetStore.open(str(config.store))
        store.check_files()
        store.check_matches(data.image_ids, data.captions)
        if isinstance(store, TeacherStore):
            # Read now: a wrong width or NaN is an error here and not at the first step.
            _ = store.image_factors, store.text_factors
            name = str(store.manifest["teacher"]["name"])
        else:
            name = f"{store.manifest['config'].get('scorer', 'knowledge')} of the knowledge graph"
        source = LabelSource(config, store, store.known, store.fingerprint, name)
    standard = SoftLabelConfig(store=".")
    for name in dict.fromkeys(name for names in READ_BY.values() for name in names):
        if name not in READ_BY[source.policy] and getattr(config, name) != getattr(standard, name):
            raise ConfigError(
                f"soft_labels: policy {source.policy} of {source.name} does not read {name}: leave it out, or name a "
                f"policy that does ({', '.join(policy for policy, names in READ_BY.items() if name in names)})"
            )
    return source


Sides = tuple[Tensor, Tensor]
"""Store rows here and of all: int64 ``[B_local]`` and ``[B_global]``, on the CPU."""

Blocks = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""``[B_local, B_global]`` each, in the order of ``StepTargets``."""


@dataclass(frozen=True)
class StepTargets:
    """Targets of a step; all ``[B_local, B_global]`` on one device, rows sum to 1."""

    image_text: Tensor
    text_image: Tensor
    views: Tensor
    """First views here against second views of all."""
    views_back: Tensor
    """Second views here against first views of all."""
    texts: Tensor
    mask: Tensor | None
    """Pairs of one case, which no term counts; None where nothing is masked."""


def similarities(
    source: LabelSource, device: torch.device, budget_mb: int
) -> Callable[[Sides, Sides | None], Blocks]:
    """A function from items, and the images of their second views (None: their own), to blocks of similarities.

    Args:
        source: whose similarities they are.
        device: where they are wanted.
        budget_mb: most memory for a knowledge store's factors on the device, MB.
    """
    store = source.store
    if isinstance(store, TargetStore) and not isinstance(store, TeacherStore):
        blocks = make_blocks(store, device, budget_mb)

        def of_knowledge(items: Sides, second: Sides | None) -> Blocks:
            rows, columns = blocks(*items)
            if second is None:
                return rows, columns, rows, rows, rows
            return rows, columns, blocks(items[0], second[1])[0], blocks(second[0], items[1])[0], rows

        return of_knowledge

    def of_teacher(items: Sides, second: Sides | None) -> Blocks:
        def block(rows: Tensor, columns: Tensor, kind: str) -> Tensor:
            return torch.tensor(store.block(rows.numpy(), columns.numpy(), kind=kind)).to(
                device, non_blocking=True
            )

        if second is None or not store.dim:  # `none` knows items only
            views = back = block(*items, "image_image")
        else:
            if not isinstance(store, TeacherStore):
                # Asked for all images of the step at once, it encodes each of them once.
                store.images(torch.cat([items[1], second[1]]).numpy())
            views = block(items[0], second[1], "image_image")
            back = block(second[0], items[1], "image_image")
        image_text, text_image = block(*items, "image_text"), block(*items[::-1], "image_text").T
        return image_text, text_image, views, back, block(*items, "text_text")

    return of_teacher


class LabelBuilder:
    """From row numbers to the targets of all terms; it keeps nothing between calls, so that a thread can call it.

    Args:
        data: the store that is trained on: cases, for the mask.
        sources: none gives hard labels.
        loss: λ and the space it is added in.
        device: where targets are returned.

    Raises:
        ConfigError: a policy needs what its source does not have.
    """

    def __init__(
        self,
        data: TargetStore,
        sources: Sequence[LabelSource],
        loss: PretrainLossConfig,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a constant
    ) -> None:
        # InfoNCE's targets: the identity, and the mask of pairs of one case.
        self._hard = TargetBuilder(data, LossConfig(name="info_nce"), PolicyConfig(threshold=0.0), device)
        total = sum(source.config.weight for source in sources)
        self._sources = [
            (
                source.config.weight / total,
                similarities(source, device, loss.device_factors_mb),
                _grade(source, loss),
                torch.as_tensor(source.known),
            )
            for source in sources
            if source.config.weight
        ]
        self._device = device

    def __call__(
        self, local: Tensor, rows_of_all: Tensor, offset: int, second: Tensor | None = None
    ) -> StepTargets:
        """Targets of this process's rows against all ranks'.

        Args:
            local: store rows of this process, int64 ``[B_local]``, on the CPU.
            rows_of_all: store rows of all processes in rank order, int64 ``[B_global]``, on the CPU.
            offset: rank · B_local.
            second: store rows of the images that all ranks' second views show, as ``rows_of_all``; None: the same.
        """
        targets = self._hard(local, rows_of_all, offset)
        hard, mask = targets.i2t, targets.mask
        if not self._sources:
            return StepTargets(hard, hard, hard, hard, hard, mask)
        items = local, rows_of_all
        others = None if second is None else (second[offset : offset + len(local)], second)
        second_views = items if others is None else others
        # Whose rows and whose columns each block has: for what is known of them.
        sides = [items, items, (local, second_views[1]), (second_views[0], rows_of_all), items]
        mixed = [torch.zeros_like(hard)] * len(sides)
        for weight, blocks_of, grade, known in self._sources:
            blocks = blocks_of(items, others)
            done: dict[int, Tensor] = {}
            for block, (rows, columns) in zip(blocks, sides, strict=True):
                if id(block) not in done:  # a knowledge store's blocks are the same for several terms
                    # A positive of two images is soft only where both are known.
                    here = known[rows] & known[columns[offset : offset + len(rows)]]
                    kept = here.to(self._device, non_blocking=True)
                    of_all = known[columns].to(self._device, non_blocking=True)
                    done[id(block)] = grade(block, offset, pair_structure(block, offset, kept, of_all, mask))
            graded = [done[id(block)] for block in blocks]
            if weight != 1.0:
                graded = [torch.add(*pair, alpha=weight) for pair in zip(mixed, graded, strict=True)]
            mixed = graded
        image_text, text_image, views, back, texts = mixed
        return StepTargets(image_text, text_image, views, back, texts, mask)


def _grade(source: LabelSource, loss: PretrainLossConfig) -> Callable[[Tensor, int, Pairs], Tensor]:
    """A function from block, offset and pairs to a distribution over each row."""
    config, scale = source.config, source.store.scale
    if source.policy == EQ5:
        wanted = scale if config.temperature is None else 1.0 / config.temperature

        def eq5(block: Tensor, offset: int, pairs: Pairs) -> Tensor:
            scaled = block if wanted == scale else block * (wanted / scale)
            # Only soft positives take soft mass, as under every policy: nothing is known of an unknown image.
            masked = ~(pairs.positive | pairs.soft_positives)
            return teacher_targets(scaled, offset, loss.lambda_weight, wanted, loss.lambda_space, masked)

        return eq5
    threshold = POLICIES[source.policy].threshold if config.threshold is None else config.threshold
    if source.policy == "evidence" and threshold is None:
        if not isinstance(source.store, TargetStore) or source.store.kind == "teacher":
            raise ConfigError(
                f"soft_labels: policy evidence of {source.name} needs a threshold, such as 0.3: a teacher suggests none"
            )
        threshold = source.store.threshold
        if not -1.0 <= threshold < 1.0:
            raise ConfigError(
                f"soft_labels: {source.name} suggests the threshold {threshold}: set one below 1"
            )
    own = POLICIES[source.policy].temperature if config.temperature is None else config.temperature
    policy = bind_policy(source.policy, own, config.alpha, threshold or 0.0, config.saturation)
    return lambda block, offset, pairs: policy(block / scale, pairs=pairs)


def teacher_targets(
    block: Tensor,
    offset: int,
    lam: float,
    scale: float = 1.0,
    space: str = "logit",
    mask: Tensor | None = None,
) -> Tensor:
    """P = softmax(block + λ·I) (``logit``), or softmax(block + s·λ·I) (``cosine``): λ added to the cosine itself.

    At s = 100 and λ = 0.01 the former multiplies the odds of the positive by e^0.01, the latter by e^1.

    Args:
        block: s·A_local·B_globalᵀ of the teacher's unit factors, float ``[B_local, B_global]``.
        offset: column of row 0's positive, = rank · B_local.
        lam: λ ≥ 0, what the positive's similarity is raised by.
        scale: s > 0, exp of the teacher's logit scale; only ``cosine`` looks at it.
        space: ``logit`` or ``cosine``.
        mask: pairs that get no target, bool, same shape; never a positive.

    Returns:
        P, float32, same shape.

    Raises:
        ShapeError: the positives' columns lie outside the block, or the mask has another shape.
        ConfigError: no such space.
        DataError: the block holds a value that is not a finite number.

    Source: AMiF supplement, Eq. 5; λ behind the scale is the authors' code's, ``cosine`` ours (methods.md §2.2).
    """
    one_of("loss.lambda_space", space, SPACES)
    check_offset(block, offset)
    # On a GPU to look would be to wait; there NaN goes through to the loss, which ends the run.
    if block.device.type == "cpu" and not bool(torch.isfinite(block).all()):
        row = int((~torch.isfinite(block)).any(dim=1).nonzero()[0])
        raise DataError(
            f"soft labels: the teacher's similarities of item {offset + row} of the batch are not finite numbers: "
            "build the teacher's store again"
        )
    logits = block.to(torch.float32, copy=True)
    logits.diagonal(offset).add_(lam * scale if space == "cosine" else lam)
    if mask is not None:
        if mask.shape != block.shape:
            raise ShapeError(f"a mask of {list(mask.shape)} does not fit a block of {list(block.shape)}")
        logits.masked_fill_(mask, -torch.inf)  # a row has its positive, so none is wholly −inf
    return torch.softmax(logits, dim=-1)


def check_offset(block: Tensor, offset: int) -> None:
    """Refuse a block that does not hold its rows' positives.

    Raises:
        ShapeError: it is not ``[B_local, B_global]`` with ``0 ≤ offset ≤ B_global − B_local``.
    """
    if block.dim() != 2 or offset < 0 or offset + block.shape[0] > block.shape[1]:
        raise ShapeError(f"positives at offset {offset} lie outside a block of {list(block.shape)}")
