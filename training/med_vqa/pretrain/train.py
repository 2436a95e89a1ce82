"""Pre-training a Med-VQA model: from a configuration to the run that the engine trains."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kg_targets.store import TargetStore
from training.clip.config import check_precision
from training.data.facts import describe_data
from training.data.sources import open_source
from training.engine.session import Prepared, Say, run_training
from training.med_vqa.model.build import build_med_vqa, initial_digests
from training.med_vqa.pretrain.config import PretrainConfig
from training.med_vqa.pretrain.corpus import Exclusions
from training.med_vqa.pretrain.labels import LabelSource, open_label_sources
from training.med_vqa.pretrain.run import PretrainRun


def train(config: PretrainConfig, say: Say) -> int:
    """Run one stage of a pre-training as configured, or what is left of it.

    Args:
        config: the configuration.
        say: tells a person why nothing or not everything was done.

    Returns:
        0, or 128 + the signal that asked to stop; OUTPUT then holds the state to continue from.

    Raises:
        KGTargetsError: the configuration, a store, the images, the start or OUTPUT are not usable.
    """
    return run_training(config, partial(prepare_run, config), say)


def prepare_run(config: PretrainConfig) -> Prepared:
    """Find the store, the images and the soft labels, which tell a run apart from others.

    Raises:
        KGTargetsError: the configuration, a store, the images or the start are not usable.
    """
    store = TargetStore.open(config.data.store)
    images = open_source(Path(config.data.data_root), store)
    exclusions = Exclusions.read(config.data.exclude, store)
    labels = open_label_sources(config.soft_labels, config.loss, store, images)

    def build(accelerator: Accelerator) -> PretrainRun:
        check_precision(config.model.precision, accelerator.device.type)
        vqa = build_med_vqa(config.model)
        return PretrainRun(config, accelerator, vqa, store, images, exclusions, labels)

    return Prepared(
        fingerprints=[
            store.fingerprint,
            images.digest(),
            hashlib.sha256(json.dumps(exclusions.found).encode()).hexdigest(),
            *(source.digest for source in labels),
            *initial_digests(config.model),
        ],
        precision=config.model.precision,
        data_facts=partial(_describe, store, exclusions, labels),
        build=build,
    )


def _describe(store: TargetStore, exclusions: Exclusions, labels: Sequence[LabelSource]) -> dict[str, Any]:
    """OUTPUT/data.json: the data, what was left out, and where soft labels come from; never a caption or an id."""
    return {
        "train": describe_data(store),
        "excluded": exclusions.facts(),
        "soft_labels": [source.facts() for source in labels],
    }
