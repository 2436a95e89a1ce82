"""An NB-CLIP training run, in the order in which it happens: data, model, objective, loop, selection, saving."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.losses.contrastive import gather_rows
from kg_targets.losses.policies import identity_weight
from kg_targets.losses.registry import LOSSES
from kg_targets.store import TargetStore
from training.clip.freeze import refuse_batch_norm
from training.clip.load import Clip, build_clip, model_config, write_model_folder
from training.clip.pretrained import check_named_weights, weights_digest
from training.data.dataset import Batch, CaptionedImages, rows_of_share
from training.data.loader import Loader
from training.data.metadata import describe_data
from training.data.samplers import make_sampler
from training.data.sources import ImageSource, open_source
from training.data.transforms import PixelTransform
from training.engine.checkpoint import write_checkpoint
from training.engine.loop import Task, one_ahead
from training.engine.outline import Outline
from training.engine.session import Prepared
from training.engine.sharing import slices
from training.errors import ConfigError, DataError
from training.nb_clip.batch_targets import RowTargets, TargetBuilder
from training.nb_clip.config import TrainConfig
from training.nb_clip.inputs import FrozenInputs, PixelInputs
from training.nb_clip.objective import NBClipObjective
from training.retrieval.concepts import cui_at
from training.retrieval.features import RetrievalSet
from training.retrieval.metrics import label_codes, precision_at
from training.retrieval.ranking import rank


def prepare_run(config: TrainConfig) -> Prepared:
    """Open the stores and find their images, which tell a run apart from others.

    Raises:
        KGTargetsError: the configuration, a store or the images are not usable.
    """
    if (
        config.model.image_weights or config.model.text_weights
    ):  # of another model? before their packages are missed
        hint = "; training/configs/nb_clip.yaml is for any open_clip model"
        check_named_weights(config.model, model_config(config.model.name), hint)
    root = Path(config.data.data_root)
    names = {"train": config.data.train_store} | (
        {"dev": config.data.dev_store} if config.data.dev_store else {}
    )
    stores = {name: TargetStore.open(folder) for name, folder in names.items()}
    for store in stores.values():
        store.check_files()  # one flipped bit would train other weights under the same key
    splits = {name: Split(store, open_source(root, store)) for name, store in stores.items()}
    for split in splits.values():
        split.source.check_present(config.data.max_broken)  # before weights are downloaded
    fingerprints = dict[str, str]()
    for name, split in splits.items():
        fingerprints[f"data.{name}_store"] = split.store.fingerprint
        fingerprints[f"the images of data.{name}_store"] = split.source.digest()

    def build(accelerator: Accelerator) -> NBClipRun:
        bias = config.loss.init_bias if LOSSES[config.loss.name].biased else None
        clip = build_clip(config.model, logit_bias=bias)
        return NBClipRun(config, accelerator, clip, splits["train"], splits.get("dev"))

    return Prepared(
        fingerprints=fingerprints | {"the model's local weights": weights_digest(config.model)},
        precision=config.model.precision,
        data_metadata=lambda: {name: describe_data(store) for name, store in stores.items()},
        build=build,
        may_be_sharded=not config.data.cached_views,
    )


def outline(config: TrainConfig) -> Outline:
    """What the run would need; weights that a tag names are random ones here."""
    data, loss = config.data, LOSSES[config.loss.name]
    clip = build_clip(
        replace(config.model, pretrained=None), logit_bias=config.loss.init_bias if loss.biased else None
    )
    stores = [TargetStore.open(folder) for folder in (data.train_store, data.dev_store) if folder]
    side = PixelTransform(clip.preprocess, clip.mean, clip.std).shape[-1]
    words = clip.tokenizer([""])

    def forward(count: int) -> Tensor:
        output = clip.model(torch.zeros(count, 3, side, side), words.expand(count, -1))
        return torch.as_tensor(
            output["logit_scale"] * (output["image_features"] @ output["text_features"].T).sum()
        )

    return Outline(
        clip.model, forward, len(rows_of_share(stores[0].cases, data.case_share)), "images",
        sum(map(len, stores)), side, True if data.cached_views else data.in_memory, config.loss.micro_batch,
    )  # fmt: skip


@dataclass(frozen=True)
class Split:
    """A target store and its images."""

    store: TargetStore
    source: ImageSource


@dataclass(frozen=True)
class Step:
    """A batch with its targets; what the CPU has to do for them is done while the step before it runs."""

    batch: Batch
    targets: "Future[RowTargets]"


class NBClipRun(Task[Step]):
    """Captioned images, two towers and the NB-CLIP objective, for the engine's loop."""

    loader: Loader

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, clip: Clip, train: Split, dev: Split | None
    ) -> None:
        self.config, self.accelerator, self.clip = config, accelerator, clip
        data, self.batch_size = config.data, config.data.batch_size
        # Data.
        keep = True if data.cached_views else data.in_memory
        load = partial(
            CaptionedImages, clip=clip, in_memory=keep, max_broken=data.max_broken,
            long_captions=data.long_captions,
        )  # fmt: skip
        share = rows_of_share(train.store.cases, data.case_share)
        self.images = load(train.store, train.source, rows=share)
        self.sampler = make_sampler(
            data.sampler, self.images.store, self.images.rows, batch_size=data.batch_size, seed=config.seed,
            rank=accelerator.process_index, world_size=accelerator.num_processes,
            neighbour_share=data.neighbour_share,
        )  # fmt: skip
        pin = accelerator.device.type == "cuda"
        self.loader = Loader(self.images, self.sampler, data.workers, data.prefetch, pin)
        # A gallery must not change under the queries: its broken images are found now, not while it is searched.
        dev_images = load(dev.store, dev.source, verify=True) if dev else None
        # Selection.
        self.selector = (
            Selector(config.select, RetrievalSet(dev_images.store, dev_images.rows)) if dev_images else None
        )
        self.measure = self.selector.name if self.selector else None
        # Objective.
        self.targets = TargetBuilder(train.store, config.loss, config.policy, accelerator.device)
        self.objective = NBClipObjective(config.loss, accelerator)
        # Model.
        self.objective.freeze_unused(clip.model)
        if len(slices(data.batch_size // accelerator.num_processes, config.loss.micro_batch)) > 1:
            refuse_batch_norm(clip.model.train())  # here too: before OUTPUT is begun
        # A quarter less time for convolutions on a CPU, and what tensor cores want on a GPU.
        clip.model.to(memory_format=torch.channels_last)
        self.inputs: PixelInputs | FrozenInputs = (
            FrozenInputs(config, clip, self.images, dev_images, accelerator)
            if data.cached_views
            else PixelInputs(config, clip, dev_images, accelerator)
        )
        self.learns(self.inputs.learner, accelerator, config.optim, self.sampler.steps)

    def batches(self, epoch: int, skip: int, first_step: int) -> Iterator[Step]:
        """Batches of an epoch; the similarities of the next one are looked up while the former one trains."""
        self.model.train()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="targets") as thread:
            yield from one_ahead(self._steps(thread, epoch, skip, first_step))

    def _steps(self, thread: ThreadPoolExecutor, epoch: int, skip: int, first_step: int) -> Iterator[Step]:
        share, policy = self.batch_size // self.accelerator.num_processes, self.config.policy
        for step, batch in enumerate(self.loader.epoch(epoch, skip), start=first_step):
            # Gathered here and not in the thread: processes must meet in the same order.
            rows = gather_rows(batch.rows, share, device=self.accelerator.device)
            offset = self.accelerator.process_index * len(batch.rows)
            mix = identity_weight(
                step, self.total_steps, policy.identity_mix_start, policy.identity_mix_share
            )
            yield Step(batch, thread.submit(self.targets.by_rows, batch.rows, rows, offset, mix))

    def backward(self, batch: Step, step: int, measured: bool) -> dict[str, Tensor]:
        """Gradients of one step; the measurements it returns stay on the device until they are logged."""
        offset = self.accelerator.process_index * len(batch.batch.rows)
        return self.objective.backward(
            self.model,
            self.inputs.images(batch.batch, step, offset),
            self.inputs.texts(batch.batch),
            self.result(batch.targets),
            offset,
            measured=measured,
        )

    def after_step(self) -> None:
        """CLIP's bound of the logit scale."""
        with torch.no_grad():
            scale = self.unwrapped().logit_scale
            scale.clamp_(0.0, math.log(self.config.optim.max_logit_scale))

    def ids(self, batch: Step) -> list[str]:
        """The image ids of this process's share of a batch."""
        return [self.images.store.image_ids[row] for row in batch.batch.rows.tolist()]

    def score(self) -> float:
        """Image→image retrieval on the dev split."""
        if self.selector is None:
            raise RuntimeError("there is no dev split to score")
        features = self.inputs.gallery(self.whole())
        if not np.isfinite(features).all():
            raise DataError("the model's features on the dev split are not finite: lower optim.lr")
        return self.selector(features)

    def save(self, output: Path, model: Any) -> None:
        """OUTPUT/checkpoint, for open_clip."""
        if self.config.data.cached_views:
            model = self.clip.model  # of which only the layers that learn were trained
        write_checkpoint(output, lambda folder: write_model_folder(folder, model, self.clip))

    def own_metadata(self) -> dict[str, Any]:
        """Numbers of images."""
        return {
            "images": len(self.images),
            "broken_images": len(set(gather_object(self.images.broken))),
            "long_captions": self.images.captions.longer,
            "captions_truncated": self.images.captions.truncated,
        }

    def introduction(self) -> str:
        """Describe what is about to be trained, for a person."""
        config = self.config
        kind = LOSSES[config.loss.name].targets
        target = {"policy": config.policy.name, "similarity": "similarities", "pairs": "true pairs"}[kind]
        skipped = f" ({len(self.images.broken)} broken skipped)" if self.images.broken else ""
        streamed = f"\n{self.images.streamed}" if self.images.streamed else ""
        long = f"\n{self.images.captions}" if self.images.captions.longer else ""
        return (
            f"training {config.model.name} with {config.loss.name} ({target}) on {len(self.images):,} images{skipped}, "
            f"{self.total_steps} steps of {config.data.batch_size}, on {self.accelerator.device} -> {config.output}"
            f"{long}{streamed}"
        )


class Selector:
    """Image→image retrieval on the development split, which chooses the epoch to keep.

    It scores an epoch's features by ``cui@K`` or ``p@K`` (all label columns together).

    Raises:
        ConfigError: ``p@K`` is asked of a store without labels.
    """

    def __init__(self, name: str, dev: RetrievalSet) -> None:
        self.name, self.dev = name, dev
        self._measure, _, depth = name.partition("@")
        self._depth = int(depth)
        labels = dev.store.labels
        if self._measure == "p" and not labels:
            raise ConfigError(f"select: {name} needs labels and {dev.store.path} has none; use cui@{depth}")
        self._codes = label_codes(*(dev.label(label) for label in labels)) if labels else None

    def __call__(self, features: NDArray[np.float32]) -> float:
        """The measure's mean over the queries that have a score; 0 if none has."""
        if self._measure == "p" and self._codes is not None:
            order = rank(features, features, self.dev.cases, self._depth, self._codes >= 0)
            scores = precision_at(order, self._codes, [self._depth])
        else:
            order = rank(features, features, self.dev.cases, self._depth)
            scores = cui_at(order, self.dev.cuis, self.dev.cases, [self._depth])["oracle"]
        values = scores[self._depth]
        return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
