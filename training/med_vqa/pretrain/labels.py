"""Soft labels of a step: from stores or an online teacher to targets for every pair of a batch (methods.md §2.2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kg_targets.store import TargetStore, TeacherStore
from training.errors import ConfigError
from training.med_vqa.pretrain.config import EQ5, PretrainLossConfig
from training.med_vqa.pretrain.objectives import blend, hard_targets, teacher_targets
from training.med_vqa.pretrain.sources import LabelSource
from training.nb_clip.blocks import make_blocks
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.targets import bind_policy, pair_structure
from training.nb_clip.task import TargetBuilder

Sides = tuple[Tensor, Tensor]
"""Store rows here and of all: int64 ``[B_local]`` and ``[B_global]``, on the CPU."""

Similarities = Callable[[Sides, Sides | None], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
"""Items and their second views' images (None: their own) to blocks ``[B_local, B_global]`` as in ``StepTargets``."""


@dataclass(frozen=True)
class StepTargets:
    """What a step compares with; all ``[B_local, B_global]`` on one device, rows sum to 1."""

    image_text: Tensor
    text_image: Tensor
    views: Tensor
    """First views here against second views of all."""
    views_back: Tensor
    """Second views here against first views of all."""
    texts: Tensor
    mask: Tensor | None
    """Pairs of one case, which no term counts; None where nothing is masked."""


def similarities(source: LabelSource, device: torch.device, budget_mb: int) -> Similarities:
    """Blocks of a source of either kind.

    Args:
        source: whose similarities they are.
        device: where they are wanted.
        budget_mb: most memory for a knowledge store's factors on the device, MB.
    """
    store = source.store
    if isinstance(store, TargetStore) and not isinstance(store, TeacherStore):
        blocks = make_blocks(store, device, budget_mb)

        def of_knowledge(items: Sides, second: Sides | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
            rows, columns = blocks(*items)
            if second is None:
                return rows, columns, rows, rows, rows
            return rows, columns, blocks(items[0], second[1])[0], blocks(second[0], items[1])[0], rows

        return of_knowledge

    def of_teacher(items: Sides, second: Sides | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        def block(rows: Tensor, columns: Tensor, kind: str) -> Tensor:
            return torch.tensor(store.block(rows.numpy(), columns.numpy(), kind=kind)).to(device)

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
        # The baseline's targets: the identity, and the mask of pairs of one case.
        pairs = PolicyConfig(threshold=0.0)
        self._hard = TargetBuilder(data, LossConfig(name="info_nce"), pairs, device)
        self._sources = [
            (
                source.config.weight,
                similarities(source, device, loss.device_factors_mb),
                _grade(source, loss),
                torch.as_tensor(source.known),
            )
            for source in sources
        ]
        self._device = device

    def __call__(
        self, local: Tensor, everyone: Tensor, offset: int, second: Tensor | None = None
    ) -> StepTargets:
        """Targets of this process's rows against everybody's.

        Args:
            local: store rows of this process, int64 ``[B_local]``, on the CPU.
            everyone: store rows of all processes in rank order, int64 ``[B_global]``, on the CPU.
            offset: rank · B_local.
            second: store rows of the images that everybody's second views show, as ``everyone``; None: the same.
        """
        mask = self._hard(local, everyone, offset).mask
        if not self._sources:
            hard = hard_targets(len(local), len(everyone), offset, self._device)
            return StepTargets(hard, hard, hard, hard, hard, mask)
        items = local, everyone
        others = None if second is None else (second[offset : offset + len(local)], second)
        second_views = items if others is None else others
        # Whose rows and whose columns each block has: for what is known of them.
        sides = [items, items, (local, second_views[1]), (second_views[0], everyone), items]
        parts: list[tuple[float, list[Tensor]]] = []
        for weight, blocks_of, grade, known in self._sources:
            blocks = blocks_of(items, others)
            done: dict[int, Tensor] = {}
            for block, (rows, columns) in zip(blocks, sides, strict=True):
                if id(block) not in done:  # what knowledge says of a pair is graded once
                    # A positive of two images is soft only where both are known.
                    here = known[rows] & known[columns[offset : offset + len(rows)]]
                    kept = here.to(self._device), known[columns].to(self._device)
                    done[id(block)] = grade(block, offset, *kept, mask)
            parts.append((weight, [done[id(block)] for block in blocks]))
        mixed = [
            parts[0][1][place]
            if len(parts) == 1
            else blend([(weight, found[place]) for weight, found in parts])
            for place in range(len(sides))
        ]
        image_text, text_image, views, back, texts = mixed
        return StepTargets(image_text, text_image, views, back, texts, mask)


Grade = Callable[[Tensor, int, Tensor, Tensor, Tensor | None], Tensor]
"""Block, offset, known rows, known columns and mask to a distribution over each row."""


def _grade(source: LabelSource, loss: PretrainLossConfig) -> Grade:
    config, scale = source.config, source.store.scale
    if source.policy == EQ5:
        wanted = scale if config.temperature is None else 1.0 / config.temperature

        def eq5(block: Tensor, offset: int, rows: Tensor, columns: Tensor, mask: Tensor | None) -> Tensor:
            # Only relatives take soft mass, as under every policy: nothing is known of an unknown image.
            pairs = pair_structure(block, offset, rows, columns, mask)
            return teacher_targets(
                block if wanted == scale else block * (wanted / scale),
                offset,
                loss.lambda_weight,
                wanted,
                loss.lambda_space,
                ~(pairs.positive | pairs.relatives),
            )

        return eq5
    threshold = config.threshold
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
    named = PolicyConfig(name=source.policy, temperature=config.temperature)
    policy = bind_policy(
        source.policy, named.used_temperature, config.alpha, threshold or 0.0, config.saturation
    )

    def graded(block: Tensor, offset: int, rows: Tensor, columns: Tensor, mask: Tensor | None) -> Tensor:
        cosines = block / scale
        return policy(cosines, pairs=pair_structure(cosines, offset, rows, columns, mask))

    return graded
