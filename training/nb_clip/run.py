"""An NB-CLIP training run: stores, images, model and objective, put together for the engine's loop."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kg_targets.store import TargetStore
from training.clip.load import Clip, write_model_folder
from training.config import TrainConfig
from training.data.cases import rows_of_share
from training.data.dataset import Batch, CaptionedImages
from training.data.loader import Loader
from training.data.samplers import make_sampler
from training.data.sources import ImageSource
from training.engine.checkpoint import write_checkpoint
from training.engine.schedule import make_optimizer, make_schedule
from training.errors import DataError
from training.nb_clip.accumulate import refuse_batch_norm, slices
from training.nb_clip.inputs import make_inputs
from training.nb_clip.losses import LOSSES
from training.nb_clip.rows import gather_rows
from training.nb_clip.selection import Selector
from training.nb_clip.targets import identity_weight
from training.nb_clip.task import NBClipTask, TargetBuilder, Targets
from training.retrieval.features import RetrievalSet


@dataclass(frozen=True)
class Split:
    """A target store and its images."""

    store: TargetStore
    source: ImageSource


@dataclass(frozen=True)
class Step:
    """A batch with its targets, which are computed while the step before it runs."""

    batch: Batch
    targets: "Future[Targets]"


class NBClipRun:
    """The task that the loop runs (``training.engine.loop.Task``)."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, clip: Clip, train: Split, dev: Split | None
    ) -> None:
        self.config, self.accelerator, self.clip = config, accelerator, clip
        data = config.data
        share = rows_of_share(train.store.group_ids, data.case_share)
        self.images = _load(train, clip, config, rows=share)
        self.sampler = make_sampler(
            data, self.images, config.seed, accelerator.process_index, accelerator.num_processes
        )
        self.loader = Loader(self.images, self.sampler, data.workers, data.prefetch)
        # A gallery must not change under the queries: its broken images are found now, not while it is searched.
        self.dev_images = _load(dev, clip, config, verify=True) if dev else None
        self.selector: Selector | None = None
        if self.dev_images is not None:
            retrieval = RetrievalSet.of(self.dev_images.store, self.dev_images.rows)
            self.selector = Selector(config.select, retrieval)
        self.measure: str | None = self.selector.name if self.selector else None
        all_steps = self.sampler.steps * config.optim.epochs
        self.total_steps = min(all_steps, config.optim.max_steps or all_steps)
        self.unit, self.batch_size = "images", data.batch_size
        self.targets = TargetBuilder(train.store, config.loss, config.policy, accelerator.device)
        self.objective = NBClipTask(config.loss, accelerator)
        self.objective.freeze_unused(clip.model)
        if len(slices(data.batch_size // accelerator.num_processes, config.loss.micro_batch)) > 1:
            refuse_batch_norm(clip.model.train())  # here too: before OUTPUT is begun
        # A quarter less time for convolutions on a CPU, and what tensor cores want on a GPU.
        clip.model.to(memory_format=torch.channels_last)
        self.inputs = make_inputs(config, clip, self.images, self.dev_images, accelerator)
        optimizer = make_optimizer(self.inputs.learner, config.optim)
        self.model: nn.Module = accelerator.prepare(self.inputs.learner)
        self.optimizer: Optimizer = accelerator.prepare(optimizer)
        self.schedule: LRScheduler = make_schedule(optimizer, config.optim, self.total_steps)
        self._waited = 0.0

    def batches(self, epoch: int, skip: int, first_step: int) -> Iterator[Step]:
        """Batches of an epoch; the similarities of the next one are looked up while the former one trains."""
        self.model.train()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="targets") as thread:
            ahead: Step | None = None
            share = self.config.data.batch_size // self.accelerator.num_processes
            for step, batch in enumerate(self.loader.epoch(epoch, skip), start=first_step):
                # Gathered here and not in the thread: processes must meet in the same order.
                rows = gather_rows(self.accelerator, batch.rows, share)
                offset = self.accelerator.process_index * len(batch.rows)
                now, ahead = (
                    ahead,
                    Step(batch, thread.submit(self.targets, batch.rows, rows, offset, self._mix(step))),
                )
                if now is not None:
                    yield now
            if ahead is not None:
                yield ahead

    def _mix(self, step: int) -> float:
        policy = self.config.policy
        return identity_weight(step, self.total_steps, policy.identity_mix_start, policy.identity_mix_share)

    def backward(self, batch: Step, step: int, measured: bool) -> dict[str, Tensor]:
        """Gradients of one step; the measurements it returns stay on the device until they are logged."""
        offset = self.accelerator.process_index * len(batch.batch.rows)
        return self.objective.backward(
            self.model,
            self.inputs.images(batch.batch, step, offset),
            self.inputs.texts(batch.batch),
            self._targets_of(batch),
            offset,
            measured=measured,
        )

    def _targets_of(self, batch: Step) -> Targets:
        began = time.perf_counter()
        targets = batch.targets.result()
        self._waited += time.perf_counter() - began
        return targets

    def after_step(self) -> None:
        """CLIP's bound of the logit scale."""
        with torch.no_grad():
            scale = self.accelerator.unwrap_model(self.model).logit_scale
            scale.clamp_(0.0, math.log(self.config.optim.max_logit_scale))

    def ids(self, batch: Step) -> list[str]:
        """The image ids of this process's share of a batch."""
        return [self.images.store.image_ids[row] for row in batch.batch.rows.tolist()]

    def measured_after(self, epoch: int) -> bool:
        """Every epoch: it costs little."""
        return True

    def score(self) -> float:
        """Image→image retrieval on the dev split."""
        if self.selector is None:
            raise RuntimeError("there is no dev split to score")
        features = self.inputs.gallery(self.accelerator.unwrap_model(self.model))
        if not np.isfinite(features).all():
            raise DataError("the model's features on the dev split are not finite: lower optim.lr")
        return self.selector(features)

    def save(self, output: Path) -> None:
        """OUTPUT/checkpoint, for open_clip."""
        write_checkpoint(output, lambda folder: write_model_folder(folder, self.clip.model, self.clip))

    def waited(self) -> float:
        """Seconds that steps have waited for images or for targets."""
        return self.loader.waited + self._waited

    def data_state(self) -> Any:
        """Which images were found broken while they were streamed."""
        return self.loader.state()

    def load_data_state(self, state: Any) -> None:
        """Know them again."""
        self.loader.load_state(state)

    def facts(self) -> dict[str, Any]:
        """What metrics.json records of the run, whichever epoch was chosen; every process has to ask."""
        return {
            "steps": self.total_steps,
            "images": len(self.images),
            "broken_images": len(set(gather_object(self.images.broken))),
            "threads": torch.get_num_threads(),
            "selected_by": f"dev {self.measure}" if self.measure else "last epoch",
        }

    def introduction(self) -> str:
        """What is about to be trained, for a person."""
        config = self.config
        kind = LOSSES[config.loss.name].targets
        target = {"policy": config.policy.name, "similarity": "similarities", "pairs": "true pairs"}[kind]
        skipped = f" ({len(self.images.broken)} broken skipped)" if self.images.broken else ""
        return (
            f"training {config.model.name} with {config.loss.name} ({target}) on {len(self.images):,} images{skipped}, "
            f"{self.total_steps} steps of {config.data.batch_size}, on {self.accelerator.device} -> {config.output}"
        )


def _load(
    split: Split,
    clip: Clip,
    config: TrainConfig,
    verify: bool = False,
    rows: NDArray[np.int64] | None = None,
) -> CaptionedImages:
    data = config.data
    return CaptionedImages(
        split.store,
        split.source,
        clip,
        in_memory=data.in_memory,
        max_broken=data.max_broken,
        verify=verify,
        rows=rows,
    )
