"""Fine-tuning a Med-VQA model: from a configuration to the run that the engine trains."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kg_targets.manifest import Manifest
from training.clip.config import check_precision
from training.data.files import image_digest
from training.engine.session import Prepared, Say, run_training
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.finetune.run import FinetuneRun
from training.med_vqa.model.build import build_med_vqa, initial_digests
from training.med_vqa.model.history import FIELD, TrainingHistory, as_json
from training.vqa.answers import accepted_answers
from training.vqa.protocols import Split, prepare


def train(config: FinetuneConfig, say: Say) -> int:
    """Run one fine-tuning as configured, or what is left of it.

    Args:
        config: the configuration.
        say: tells a person why nothing or not everything was done.

    Returns:
        0, or 128 + the signal that asked to stop; OUTPUT then holds the state to continue from.

    Raises:
        KGTargetsError: the configuration, the questions, the images or OUTPUT are not usable.
    """
    return run_training(config, partial(prepare_run, config), say)


def prepare_run(config: FinetuneConfig) -> Prepared:
    """Find the questions and the images, which tell a run apart from others.

    Raises:
        KGTargetsError: the configuration, the questions or the images are not usable.
    """
    data = config.data
    manifest = Manifest.load(data.dataset, "questions")
    split = prepare(
        manifest,
        data.data_root,
        data.protocol,
        seed=data.split_seed,
        validation_share=data.validation_share,
    )

    def build(accelerator: Accelerator) -> FinetuneRun:
        check_precision(config.model.precision, accelerator.device.type)
        return FinetuneRun(config, accelerator, build_med_vqa(config.model), split)

    return Prepared(
        fingerprints=[*_data_digests(config, split), *initial_digests(config.model)],
        precision=config.model.precision,
        data_facts=partial(_describe, manifest, split, config.model.start),
        build=build,
    )


def _data_digests(config: FinetuneConfig, split: Split) -> list[str]:
    """Of the questions that train and select, of the answers, and of the images that are shown."""
    questions = [*split.train, *split.validation]
    content = [
        [[q.id, q.image_path, q.question, *accepted_answers(q, split.language)] for q in part]
        for part in (split.train, split.validation)
    ]
    text = json.dumps([content, split.candidates, split.knowledge], ensure_ascii=False)
    shown = config.data.images != "blank"
    paths = sorted({question.image_path for question in questions if question.image_path}) if shown else []
    return [hashlib.sha256(text.encode()).hexdigest(), image_digest(Path(config.data.data_root), paths)]


def _describe(manifest: Manifest, split: Split, start: str | None) -> dict[str, Any]:
    """OUTPUT/data.json: counts, where answers come from, what the start saw before; never a question."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "dataset": split.dataset,
        "title": manifest.title,
        "licence": manifest.licence,
        "language": split.language,
        "protocol": split.protocol,
        "split_seed": split.seed,
        "questions": {name: len(part) for name, part in parts.items()},
        "images": {name: len({question.image_id for question in part}) for name, part in parts.items()},
        "candidates": len(split.candidates),
        "candidate_source": split.candidate_source,
        "ceiling": split.ceiling,
        "skipped": split.skipped,
        "notes": list(split.notes),
        FIELD: as_json(TrainingHistory.of(start).pretrainings),
    }
