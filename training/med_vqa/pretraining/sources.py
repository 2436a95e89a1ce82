"""Where soft labels come from, opened and compared with the data before anything is trained."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.data.facts import describe_data
from training.data.sources import ImageSource
from training.med_vqa.pretraining.config import EQ5, SoftLabelConfig

if TYPE_CHECKING:
    from training.teachers.online import OnlineTeacher


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

    def facts(self) -> dict[str, Any]:
        """For OUTPUT/data.json."""
        facts = {
            "name": self.name,
            "policy": self.policy,
            "weight": self.config.weight,
            "digest": self.digest,
        }
        return {**facts, **(describe_data(self.store) if isinstance(self.store, TargetStore) else {})}


def open_label_source(config: SoftLabelConfig, data: TargetStore, images: ImageSource) -> LabelSource:
    """A store of the same images and captions as the data, or a teacher that will be asked about them.

    Args:
        config: the entry.
        data: the store that is trained on.
        images: its images, which an online teacher looks at.

    Raises:
        StoreError: there is no such store, or its ids, captions or dimensions are not those of the data.
        ConfigError: there is no such teacher.
        CheckpointError: its weights are missing or damaged.
    """
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
    if store.kind == "teacher":
        store.block(
            [0], kind="image_text"
        )  # reads the factors: a wrong width is told now, not at the first step
        name = str(store.manifest["teacher"]["name"])
    else:
        name = f"{store.manifest['config'].get('scorer', 'knowledge')} of the knowledge graph"
    return LabelSource(config, store, store.known, store.fingerprint, name)
