"""Where soft labels come from, opened and compared with the data before anything is trained."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from kg_targets.store import TargetStore, TeacherStore
from training.data.facts import describe_data
from training.data.sources import ImageSource
from training.errors import ConfigError, DataError
from training.med_vqa.pretrain.config import EQ5, PretrainLossConfig, SoftLabelConfig

if TYPE_CHECKING:
    from training.teachers.online import OnlineTeacher

READ_BY = {
    EQ5: ("temperature",),
    "softmax": ("temperature",),
    "fixed_mass": ("temperature", "alpha"),
    "evidence": ("alpha", "threshold", "saturation"),
    "uniform": ("alpha",),
}
"""Fields of an entry that each policy reads."""


@dataclass(frozen=True)
class LabelSource:
    """One entry of ``soft_labels``."""

    config: SoftLabelConfig
    store: "TargetStore | OnlineTeacher"
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

    def facts(self) -> dict[str, Any]:
        """For OUTPUT/data.json."""
        facts = {
            "name": self.name,
            "policy": self.policy,
            "weight": self.config.weight,
            "digest": self.digest,
        }
        return {**facts, **(describe_data(self.store) if isinstance(self.store, TargetStore) else {})}


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
    source = _opened(config, data, images)
    source.check_fields()
    return source


def _opened(config: SoftLabelConfig, data: TargetStore, images: ImageSource) -> LabelSource:
    if config.teacher:
        from training.teachers.online import OnlineTeacher
        from training.teachers.registry import open_teacher

        gpu = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        teacher = open_teacher(config.teacher, gpu if torch.cuda.is_available() else "cpu")
        online = OnlineTeacher(teacher, data, images if teacher.reads_images else None)
        everything = np.ones(len(data), dtype=bool)
        return LabelSource(config, online, everything, teacher.digest, f"{teacher.name} (online)")
    store = TargetStore.open(str(config.store))
    store.check_matches(data.image_ids, data.captions)
    if isinstance(store, TeacherStore):
        _check_finite(store)  # reads the factors: a wrong width, too, is told now and not at the first step
        name = str(store.manifest["teacher"]["name"])
    else:
        name = f"{store.manifest['config'].get('scorer', 'knowledge')} of the knowledge graph"
    return LabelSource(config, store, store.known, store.fingerprint, name)


def _check_finite(store: TeacherStore) -> None:
    for what, factors in (("image", store.image_factors), ("caption", store.text_factors)):
        spoilt = np.flatnonzero(~np.isfinite(factors).all(axis=1))
        if len(spoilt):
            raise DataError(
                f"soft_labels: what {store.teacher['name']} says of the {what} of {store.image_ids[spoilt[0]]} "
                f"({len(spoilt):,} in all) are no finite numbers: build {store.path} again"
            )
