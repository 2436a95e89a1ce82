"""The training loop: one configuration in, one finished run folder out."""

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from kg_targets.store import TargetStore
from training.clip.load import Clip, load_clip
from training.config import TrainConfig
from training.data.content import image_digest
from training.data.dataset import Batch, CaptionedImages
from training.data.sampler import EpochBatches
from training.data.transforms import Augmentation
from training.engine.checkpoint import finish_run, is_finished, run_key, save_checkpoint, start_run
from training.engine.schedule import make_optimizer, make_schedule
from training.engine.selection import Selector
from training.engine.threads import resolve_threads
from training.engine.tracking import Tracker
from training.errors import DataError
from training.evaluate.features import RetrievalSet, encode_images
from training.folders import writing
from training.nb_clip.losses import LOSSES
from training.nb_clip.targets import identity_weight
from training.nb_clip.task import NBClipTask, TargetBuilder
from training.options import to_yaml


def train(config: TrainConfig) -> bool:
    """Run one training as configured.

    Returns:
        False if OUTPUT already held this run and nothing was done.

    Raises:
        KGTargetsError: the configuration, a store, the images or OUTPUT are not usable.
    """
    store = TargetStore.open(config.data.train_store)
    dev_store = TargetStore.open(config.data.dev_store) if config.data.dev_store else None
    output = Path(config.output)
    threads = resolve_threads(config.threads)
    root = Path(config.data.data_root)
    stores = [s for s in (store, dev_store) if s is not None]
    key = run_key(
        config, [text for s in stores for text in (s.fingerprint, image_digest(root, s.image_paths))], threads
    )
    if is_finished(output, key, overwrite=config.overwrite):
        return False

    set_seed(config.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    accelerator = Accelerator(
        mixed_precision="bf16" if config.model.precision == "bf16" else "no",
        log_with="tensorboard" if config.log.tensorboard else None,
        project_dir=config.output,
    )
    torch.set_num_threads(threads)  # after Accelerator, which sets it by itself for some launches
    bias = config.loss.init_bias if LOSSES[config.loss.name].biased else None
    clip = load_clip(config.model.name, config.model.pretrained, logit_bias=bias)
    trainer = Trainer(config, accelerator, clip, store, dev_store)
    if accelerator.is_main_process:
        start_run(output, to_yaml(config))
    accelerator.wait_for_everyone()
    if config.log.tensorboard:
        with writing(output, "--output"):
            accelerator.init_trackers("tensorboard")
    metrics = trainer.run()
    accelerator.end_training()
    if accelerator.is_main_process:
        finish_run(output, key, metrics)
    return True


class Trainer:
    """Holds what a run needs from step to step."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        clip: Clip,
        store: TargetStore,
        dev_store: TargetStore | None,
    ) -> None:
        self.config, self.accelerator, self.clip = config, accelerator, clip
        data = config.data
        root = Path(data.data_root)

        def load(source: TargetStore) -> CaptionedImages:
            return CaptionedImages(source, root, clip, in_memory=data.in_memory, max_broken=data.max_broken)

        self.images = load(store)
        self.batches = EpochBatches(
            len(self.images),
            data.batch_size,
            config.seed,
            accelerator.process_index,
            accelerator.num_processes,
        )
        self.augment = Augmentation(data.rotation, data.shift, data.zoom, data.brightness)
        self.dev_images = load(dev_store) if dev_store else None
        self.selector = (
            Selector(config.select, RetrievalSet.of(dev_store, self.dev_images.rows))
            if dev_store and self.dev_images
            else None
        )
        all_steps = self.batches.steps * config.optim.epochs
        self.total_steps = min(all_steps, config.optim.max_steps or all_steps)
        self.task = NBClipTask(TargetBuilder(store, config.loss, config.policy), config.loss, accelerator)
        self.task.freeze_unused(clip.model)
        optimizer = make_optimizer(clip.model, config.optim)
        # A quarter less time for convolutions on a CPU, and what tensor cores want on a GPU.
        channels_last = clip.model.to(memory_format=torch.channels_last)
        self.model: nn.Module = accelerator.prepare(channels_last)
        self.optimizer: AdamW = accelerator.prepare(optimizer)
        self.schedule: LambdaLR = make_schedule(optimizer, config.optim, self.total_steps)

    def run(self) -> dict[str, Any]:
        """All epochs; OUTPUT/checkpoint holds the best (with a dev store) or the last one.

        Returns:
            What metrics.json records.
        """
        metrics: dict[str, Any] = {
            "steps": self.total_steps,
            "images": len(self.images),
            "broken_images": len(self.images.broken),
            "threads": torch.get_num_threads(),
            "selected_by": f"dev {self.selector.name}" if self.selector else "last epoch",
        }
        best = -math.inf
        step = 0
        with Tracker(
            self.accelerator, Path(self.config.output), self.total_steps, self.config.log.every
        ) as tracker:
            tracker.say(self._introduction())
            for epoch in range(1, self.config.optim.epochs + 1):
                step = self._epoch(epoch, step, tracker)
                score = self._score(epoch, step, tracker)
                if score is None or score > best:
                    best = -math.inf if score is None else score
                    metrics.update(epoch=epoch, step=step)
                    if score is not None:
                        metrics[f"dev_{self.config.select}"] = round(score, 6)
                    if self.accelerator.is_main_process and (score is not None or step >= self.total_steps):
                        self._save()
                if step >= self.total_steps:
                    break
        return metrics

    def _epoch(self, epoch: int, step: int, tracker: Tracker) -> int:
        self.model.train()
        for positions in self.batches.epoch(epoch):
            if step >= self.total_steps:
                break
            step += 1
            values = self._step(self.images.batch(positions), step)
            tracker.advance(self.config.data.batch_size)
            if tracker.due(step):
                tracker.step(step, self._over_processes(values))
        return step

    def _over_processes(self, values: dict[str, torch.Tensor]) -> dict[str, float]:
        """Each process measures its own rows; the log tells their mean."""
        local = torch.stack([value.to(self.accelerator.device).float() for value in values.values()])
        mean = self.accelerator.reduce(local, reduction="mean").tolist()
        return dict(zip(values, mean, strict=True))

    def _step(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """One optimizer step; the measurements it returns stay on the device until they are logged."""
        device = self.accelerator.device
        seed = (self.config.seed * 1_000_003 + step) * 4096 + self.accelerator.process_index
        pixels = batch.pixels.to(device).float() / 255.0
        pixels = self.augment(pixels, torch.Generator().manual_seed(seed))
        images = (pixels - self.clip.mean.to(device)) / self.clip.std.to(device)
        policy = self.config.policy
        mix = identity_weight(step, self.total_steps, policy.identity_mix_start, policy.identity_mix_share)
        tokens, rows = batch.tokens.to(device), batch.rows.to(device)
        loss, values = self.task.step(self.model, images, tokens, rows, mix)
        if not torch.isfinite(loss):
            ids = [self.images.store.image_ids[row] for row in batch.rows[:5].tolist()]
            raise DataError(
                f"step {step}: the loss is {loss.item()}; lower optim.lr; images {', '.join(ids)} …"
            )
        self.accelerator.backward(loss)
        if self.config.optim.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
        values["lr"] = torch.tensor(self.schedule.get_last_lr()[0])
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            scale = self.accelerator.unwrap_model(self.model).logit_scale
            scale.clamp_(0.0, math.log(self.config.optim.max_logit_scale))
        return values

    def _score(self, epoch: int, step: int, tracker: Tracker) -> float | None:
        if self.selector is None or self.dev_images is None:
            return None
        model = self.accelerator.unwrap_model(self.model)
        features = encode_images(model, self.clip, self.dev_images, device=self.accelerator.device)
        score = self.selector(features)
        tracker.epoch(epoch, step, {self.selector.name: score})
        return score

    def _save(self) -> None:
        model = self.accelerator.unwrap_model(self.model)
        save_checkpoint(Path(self.config.output), model, self.clip.config)

    def _introduction(self) -> str:
        config = self.config
        kind = LOSSES[config.loss.name].targets
        target = {"policy": config.policy.name, "similarity": "similarities", "pairs": "true pairs"}[kind]
        skipped = f" ({len(self.images.broken)} broken skipped)" if self.images.broken else ""
        return (
            f"training {config.model.name} with {config.loss.name} ({target}) on {len(self.images):,} images{skipped}, "
            f"{self.total_steps} steps of {config.data.batch_size}, on {self.accelerator.device} -> {config.output}"
        )
