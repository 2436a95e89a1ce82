"""Soft labels of a step: their sources, opened and compared with the data, and targets for every pair of a batch.

Formulas are in soft_labels.py, AMiF's Eq. 5 among them, and in kg_targets/losses/policies.py (methods.md §2.2).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.losses.policies import pair_structure
from kg_targets.losses.registry import POLICIES, bind_policy
from kg_targets.store import TargetStore, TeacherStore
from training.data.metadata import describe_data
from training.data.sources import ImageSource
from training.errors import ConfigError, DataError
from training.med_vqa.pretrain.config import EQ5, PretrainLossConfig, SoftLabelConfig
from training.med_vqa.pretrain.config import POLICIES as NAMES
from training.med_vqa.pretrain.soft_labels import teacher_targets
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
    """Rows that it says anything of, bool ``[N]``."""
    digest: str
    """Of all that its blocks follow from."""
    name: str
    """For a person: no path."""

    @property
    def policy(self) -> str:
        """How its similarities become distributions."""
        return self.config.policy or (EQ5 if self.store.kind == "teacher" else "evidence")

    def check_fields(self) -> None:
        """Refuse what the entry sets and its policy never reads.

        Raises:
            ConfigError: there is such a field.
        """
        read, standard = READ_BY[self.policy], SoftLabelConfig(store=".")
        for name in dict.fromkeys(name for names in READ_BY.values() for name in names):
            if name not in read and getattr(self.config, name) != getattr(standard, name):
                raise ConfigError(
                    f"soft_labels: policy {self.policy} of {self.name} does not read {name}: leave it out, or name a "
                    f"policy that does ({', '.join(policy for policy, names in READ_BY.items() if name in names)})"
                )

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
        store.check_matches(data.image_ids, data.captions)
        if isinstance(store, TeacherStore):
            # Reads the factors: a wrong width, too, is told now and not at the first step.
            _check_finite(store)
            name = str(store.manifest["teacher"]["name"])
        else:
            name = f"{store.manifest['config'].get('scorer', 'knowledge')} of the knowledge graph"
        source = LabelSource(config, store, store.known, store.fingerprint, name)
    source.check_fields()
    return source


def _check_finite(store: TeacherStore) -> None:
    for what, factors in (("image", store.image_factors), ("caption", store.text_factors)):
        spoilt = np.flatnonzero(~np.isfinite(factors).all(axis=1))
        if len(spoilt):
            raise DataError(
                f"soft_labels: what {store.teacher['name']} says of the {what} of {store.image_ids[spoilt[0]]} "
                f"({len(spoilt):,} in all) are no finite numbers: build {store.path} again"
            )


Sides = tuple[Tensor, Tensor]
"""Store rows here and of all: int64 ``[B_local]`` and ``[B_global]``, on the CPU."""

Blocks = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""``[B_local, B_global]`` each, in the order of ``StepTargets``."""


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
                    kept = here.to(self._device), known[columns].to(self._device)
                    done[id(block)] = grade(block, offset, *kept, mask)
            graded = [done[id(block)] for block in blocks]
            pairs = zip(mixed, graded, strict=True)
            mixed = graded if weight == 1.0 else [torch.add(sum_, one, alpha=weight) for sum_, one in pairs]
        image_text, text_image, views, back, texts = mixed
        return StepTargets(image_text, text_image, views, back, texts, mask)


Grade = Callable[[Tensor, int, Tensor, Tensor, Tensor | None], Tensor]
"""Block, offset, known rows, known columns and mask to a distribution over each row."""


def _grade(source: LabelSource, loss: PretrainLossConfig) -> Grade:
    config, scale = source.config, source.store.scale
    if source.policy == EQ5:
        wanted = scale if config.temperature is None else 1.0 / config.temperature

        def eq5(block: Tensor, offset: int, rows: Tensor, columns: Tensor, mask: Tensor | None) -> Tensor:
            # Only soft positives take soft mass, as under every policy: nothing is known of an unknown image.
            pairs = pair_structure(block, offset, rows, columns, mask)
            return teacher_targets(
                block if wanted == scale else block * (wanted / scale),
                offset,
                loss.lambda_weight,
                wanted,
                loss.lambda_space,
                ~(pairs.positive | pairs.soft_positives),
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
