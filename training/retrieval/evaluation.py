"""An evaluation as a function: trained models in, a report and lists to look at out.

data, results = evaluate_runs(store, source, groups, config)
report = report_of(data, results, config)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from training.clip.load import Clip, load_clip
from training.data.captions import FittedCaptions, clip_lengths, fit_to_concepts
from training.data.dataset import CaptionedImages
from training.data.sources import ImageSource
from training.engine.checkpoint import CHECKPOINT
from training.errors import DataError
from training.retrieval.config import EvalConfig, View
from training.retrieval.features import Features, RetrievalSet, encode_spaces, encode_texts
from training.retrieval.measures import (
    LabelSets,
    Measures,
    label_sets,
    measure_chance,
    measure_run,
    primary,
    view_features,
)
from training.retrieval.ranking import Device, pair_ranks, rank
from training.retrieval.report import Report, describe, make_report
from training.retrieval.runs import RunGroup
from training.retrieval.zero_shot import Task, class_features, tasks
from training.statistics.paired_tests import flips_for

SHOWN = 5
"""Places of the lists that pictures show."""
IN_MEMORY = 1 << 30
"""Decoded images are kept from one model to the next up to this many bytes; beyond, they are decoded again."""


@dataclass(frozen=True)
class Plan:
    """Measures to compute on a store, checked before anything is encoded."""

    config: EvalConfig
    labels: LabelSets
    tasks: Sequence[Task]

    @classmethod
    def of(cls, store: TargetStore, config: EvalConfig) -> "Plan":
        """The plan for a store.

        Raises:
            ConfigError: a label is not in the store, or a zero-shot class is not.
        """
        return cls(config, label_sets(store.labels, config.labels), tasks(config, store.label, store.labels))


@dataclass(frozen=True)
class RankedLists:
    """Lists for a picture of one view."""

    order: NDArray[np.int64]
    """Rows found, ``[N, SHOWN]``; with texts, the query's own counterpart may be among them."""
    own_ranks: NDArray[np.int64] | None
    """Rank of the own counterpart, ``[N]``; None for image to image."""


@dataclass(frozen=True)
class RunResult:
    """One run group, evaluated."""

    group: RunGroup
    measures: Sequence[Measures]
    """Measures of each seed."""
    shown: Mapping[View, RankedLists]
    """Lists of the first seed."""
    captions: FittedCaptions | None = None
    """Captions as the text tower got them; None where no text is compared."""


class ModelReader:
    """Features of trained models on one store's images.

    Args:
        store: captions and labels.
        source: the images.
        plan: what is needed.
        device: where models run.
    """

    def __init__(self, store: TargetStore, source: ImageSource, plan: Plan, device: Device) -> None:
        self._store, self._source, self._plan, self._device = store, source, plan, device
        self._images: tuple[str, CaptionedImages] | None = None
        self._data: RetrievalSet | None = None

    def read(self, folder: Path, long_captions: str) -> tuple[RetrievalSet, Features, FittedCaptions | None]:
        """The readable images and their features by the model of a finished run, and the captions as it reads them.

        Args:
            folder: of the run.
            long_captions: what is read of captions that are too long for its text tower, as in its training.

        Raises:
            CheckpointError: the checkpoint is damaged.
            DataError: images are broken beyond the limit, or features are not finite.
        """
        config = self._plan.config
        clip = load_clip(f"local-dir:{folder / CHECKPOINT}")
        clip.model.to(self._device)
        images = self._images_for(clip)
        data = self._data = self._data or RetrievalSet(self._store, images.rows)
        if not np.array_equal(data.rows, images.rows):
            raise DataError(f"{self._source.root}: images that could be read for one run cannot for {folder}")

        def texts(given: Sequence[str]) -> NDArray[np.float32]:
            return encode_texts(clip.model, clip.tokenizer, given, device=self._device)

        captions = None
        if config.texts:
            lengths, context = clip_lengths(clip.tokenizer)
            captions = fit_to_concepts(self._store, data.rows.tolist(), lengths, context, long_captions)
        features = Features(
            images=encode_spaces(clip.model, clip, images, config.spaces, device=self._device),
            texts=texts(captions.texts) if captions else None,
            classes={task.label: class_features(task, texts) for task in self._plan.tasks},
        )
        for part in (*features.images.values(), *features.classes.values(), features.texts):
            if part is not None and not np.isfinite(part).all():
                raise DataError(f"{folder}: the model gives features that are not finite: train it again")
        return data, features, captions

    def _images_for(self, clip: Clip) -> CaptionedImages:
        """Models of one size and one normalisation share the decoded images."""
        wanted = json.dumps(clip.config["preprocess_cfg"], sort_keys=True)
        if self._images is None or self._images[0] != wanted:
            broken = self._plan.config.max_broken
            side = np.max(clip.config["preprocess_cfg"]["size"])
            small = len(self._store) * 3 * int(side) ** 2 <= IN_MEMORY
            images = CaptionedImages(
                self._store,
                self._source,
                clip,
                in_memory=small,
                max_broken=broken,
                verify=broken > 0,
                option="--max-broken",
            )
            self._images = (wanted, images)
        return self._images[1]


def evaluate_runs(
    store: TargetStore,
    source: ImageSource,
    groups: Sequence[RunGroup],
    plan: Plan,
    device: Device | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[RetrievalSet, list[RunResult]]:
    """Evaluate finished runs on a store's images, one model at a time.

    Args:
        store: the split; its images are queries and gallery at once.
        source: its images.
        groups: the runs, the baseline first.
        plan: what is measured, see ``Plan.of``.
        device: where models run and similarities are computed; a GPU if there is one.
        say: called with a line for every model that is done.

    Raises:
        KGTargetsError: a checkpoint or the images are not usable.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    reader = ModelReader(store, source, plan, device)
    results = []
    for group in groups:
        measures: list[Measures] = []
        shown: dict[View, RankedLists] = {}
        for folder in group.folders:
            started = monotonic()
            data, features, captions = reader.read(folder, group.long_captions)
            encoded = monotonic()
            measures.append(measure_run(features, data, plan.labels, plan.config, plan.tasks, device))
            say(
                f"{group.name}: {len(data.rows):,} images encoded in {encoded - started:.1f} s, measured in "
                f"{monotonic() - encoded:.1f} s ({folder})"
            )
            if not shown:
                shown = {v: _shown(features, v, data, plan.config, device) for v in plan.config.views}
        results.append(RunResult(group, measures, shown, captions))
    return data, results


def report_of(data: RetrievalSet, results: Sequence[RunResult], plan: Plan) -> Report:
    """Intervals, comparisons with the first run, and the protocol."""
    config, groups = plan.config, [result.group for result in results]
    chance = measure_chance(data, plan.labels, config, plan.tasks)
    flips = flips_for((len(groups) - 1) * (len(chance) - 1))
    return make_report(
        header=describe(data, groups, config, plan.tasks, flips),
        data=data,
        scores={result.group.name: result.measures for result in results},
        chance=chance,
        draws=config.draws,
        seed=config.seed,
        primary=primary(config),
        keys={group.name: group.keys for group in groups},
        seeds={group.name: group.seeds for group in groups},
        flips=flips,
        captions={one.group.name: one.captions for one in results if one.captions},
    )


def _shown(
    features: Features, view: View, data: RetrievalSet, config: EvalConfig, device: Device
) -> RankedLists:
    queries, gallery = view_features(features, view)
    groups = data.excluded(config.group_exclusion)
    ranks = pair_ranks(queries, gallery, groups, data.caption_codes, device=device) if view.crosses else None
    order = rank(queries, gallery, groups, SHOWN, keep_own=view.crosses, device=device)
    return RankedLists(order, ranks)
