"""One stage of a pre-training, in the order in which it happens: corpus, labels, model, loop, selection, saving."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn import functional as F

from kg_targets.losses.contrastive import gather_rows, target_entropy
from kg_targets.store import TargetStore
from kg_targets.store.block import case_codes
from kg_targets.store.digest import json_sha256, shuffle_key
from training.data.dataset import Batch
from training.data.loader import Loader
from training.data.metadata import describe_data
from training.data.samplers import make_sampler
from training.data.sources import ImageSource, open_source
from training.engine.checkpoint import write_checkpoint
from training.engine.device import to_device
from training.engine.loop import Task, one_ahead, parameter_counts
from training.engine.outline import Outline
from training.engine.session import Prepared
from training.engine.sharing import gather_shares, rows_of_process
from training.med_vqa.model.build import build_med_vqa, initial_digests, untrained_med_vqa
from training.med_vqa.model.history import TrainingHistory
from training.med_vqa.model.saving import MedVQA, model_folder
from training.med_vqa.pretrain.config import PretrainConfig
from training.med_vqa.pretrain.corpus import DEV_BATCH, Corpus, Exclusions, Partners, StepViews, dev_rows
from training.med_vqa.pretrain.objective import PretrainingStep
from training.med_vqa.pretrain.saving import pretraining_of, save_pretrained, take_heads
from training.med_vqa.pretrain.selection import Selector
from training.med_vqa.pretrain.soft_labels import LabelBuilder, LabelSource, StepTargets, open_label_sources


def prepare_run(config: PretrainConfig) -> Prepared:
    """Find the store, the images and the soft labels, which tell a run apart from others.

    Raises:
        KGTargetsError: the configuration, a store, the images or ``model.init_from`` are not usable.
    """
    store = TargetStore.open(config.data.store)
    store.check_files()  # one flipped bit would train other weights under the same key
    images = open_source(Path(config.data.data_root), store)
    images.check_present(config.data.max_broken)  # before weights are downloaded
    exclusions = Exclusions.read(config.data.exclude, store)
    labels = open_label_sources(config.soft_labels, config.loss, store, images)

    return Prepared(
        fingerprints={
            "data.store": store.fingerprint,
            "the images of data.store": images.digest(),
            "data.exclude": json_sha256(exclusions.found),
            **{f"soft_labels {number}": source.digest for number, source in enumerate(labels, 1)},
            **initial_digests(config.model),
        },
        precision=config.model.precision,
        data_metadata=partial(_describe, store, exclusions, labels),
        build=lambda accelerator: PretrainRun(
            config, accelerator, build_med_vqa(config.model), store, images, exclusions, labels
        ),
    )


def outline(config: PretrainConfig) -> Outline:
    """What the run would need; captions are taken as long as they may be."""
    data = config.data
    store = TargetStore.open(data.store)
    kept = np.flatnonzero(Exclusions.read(data.exclude, store).kept(store))
    dev = dev_rows(store.group_ids, kept, data.dev_share)
    model = PretrainingStep(config, untrained_med_vqa(config.model))
    side = int(model.vqa.config.clip["model_cfg"]["vision_cfg"]["image_size"])
    views = 2 if config.loss.views_weight else 1

    def forward(count: int) -> Tensor:
        words, hard = torch.ones(1, count, data.max_text_tokens, dtype=torch.int64), torch.eye(count)
        with torch.set_grad_enabled(not config.model.lock_vision and config.stage == "one"):
            made = model.vqa.image_tokens(torch.zeros(views * count, 3, side, side))
        tokens = made.view(views, count, *made.shape[1:])
        output: dict[str, Tensor] = model(
            text_ids=words, text_mask=words.bool(), targets=StepTargets(hard, hard, hard, hard, hard, None), offset=0,
            words_of_all=words[0].bool(), generator=torch.Generator(), image_tokens=tokens,
        )  # fmt: skip
        return output["loss"]

    keep = True if data.cached_views or data.views == "study" else data.in_memory
    return Outline(model, forward, len(kept) - len(dev), "images", len(kept), side, keep)


def drawn_for(what: str, seed: int, step: int) -> torch.Generator:
    """A CPU generator for one of a step's draws, the same on every process."""
    digest = shuffle_key(f"{what} {seed} {step}")
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


@dataclass(frozen=True)
class Step:
    """A batch with its targets, which are computed while the step before it runs."""

    batch: Batch
    rows_of_all: Tensor
    """Store rows of all processes, int64 ``[B_global]``."""
    partners: Tensor | None
    """Places of the images that second views show, all processes', int64 ``[B_global]``; None: the items' own."""
    targets: "Future[StepTargets]"


class PretrainRun(Task[Step]):
    """Captioned images, soft labels, and AMiF's towers and co-attention, for the engine's loop."""

    loader: Loader

    def __init__(
        self,
        config: PretrainConfig,
        accelerator: Accelerator,
        vqa: MedVQA,
        store: TargetStore,
        source: ImageSource,
        exclusions: Exclusions,
        labels: Sequence[LabelSource],
    ) -> None:
        self.config, self.accelerator, self.vqa, self.exclusions = config, accelerator, vqa, exclusions
        data = config.data
        self.corpus = Corpus(data, store, source, vqa, exclusions)
        self.sampler = make_sampler(
            data.sampler, self.corpus.images.store, self.corpus.images.rows, batch_size=data.batch_size,
            seed=config.seed, rank=accelerator.process_index, world_size=accelerator.num_processes,
            neighbour_share=data.neighbour_share,
        )  # fmt: skip
        pin = accelerator.device.type == "cuda"
        self.loader = Loader(self.corpus.images, self.sampler, data.workers, data.prefetch, pin)
        studies = data.views == "study" and config.loss.views_weight > 0
        self.partners = Partners(self.corpus.cases) if studies else None
        self.labels = LabelBuilder(store, labels, config.loss, accelerator.device)
        self._label_names = [source.name for source in labels]
        self.batch_size, self.validate_every = data.batch_size, config.validate_every
        self.selector = None
        if self.corpus.dev is not None:
            cases = case_codes([store.group_ids[row] for row in self.corpus.dev.rows])
            self.selector = Selector(cases.tolist(), self.corpus.dev_tokens())
        self.measure = "mrr" if self.selector else None
        model = PretrainingStep(config, vqa.model)
        start = config.model.init_from
        self._history = TrainingHistory.of(start)
        self._warnings = [] if start is None else take_heads(model, model_folder(Path(start)))
        to_device(model, accelerator.device)
        self.views = StepViews(config, vqa, self.corpus, accelerator)
        self.learns(model, accelerator, config.optim, self.sampler.steps)

    def batches(self, epoch: int, skip: int, first_step: int) -> Iterator[Step]:
        """Batches of an epoch; the labels of the next one are looked up while the former one trains."""
        self.model.train()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="labels") as thread:
            yield from one_ahead(self._steps(thread, epoch, skip, first_step))

    def _steps(self, thread: ThreadPoolExecutor, epoch: int, skip: int, first_step: int) -> Iterator[Step]:
        share = self.batch_size // self.accelerator.num_processes
        for step, batch in enumerate(self.loader.epoch(epoch, skip), first_step):
            # Gathered here and not in the thread: processes must meet in the same order.
            rows = gather_rows(batch.rows, share, device=self.accelerator.device)
            offset = self.accelerator.process_index * len(batch.rows)
            partners = second = None
            if self.partners is not None:
                generator = drawn_for("partners", self.config.seed, step)
                partners = self.partners(self.corpus.positions(rows), generator)
                second = torch.as_tensor(self.corpus.images.rows)[partners]
            yield Step(batch, rows, partners, thread.submit(self.labels, batch.rows, rows, offset, second))

    def backward(self, batch: Step, step: int, measured: bool) -> dict[str, Tensor]:
        """Gradients of one step; the terms that it returns stay on the device until they are logged."""
        device = self.accelerator.device
        offset = self.accelerator.process_index * len(batch.batch.rows)
        targets = self.result(batch.targets)
        ids, mask, of_all = self._texts(batch, step, offset)
        partners = None if batch.partners is None else batch.partners[offset : offset + len(batch.batch.rows)]
        values: dict[str, Tensor] = self.model(
            text_ids=ids.to(device, non_blocking=True),
            text_mask=mask.to(device, non_blocking=True),
            targets=targets,
            offset=offset,
            words_of_all=of_all.to(device, non_blocking=True),
            generator=drawn_for("negatives", self.config.seed, step),
            **self.views(batch.batch, step, offset, partners),
        )
        self.accelerator.backward(values["loss"])
        values = {name: value.detach() for name, value in values.items()}
        if measured:
            values |= self._measured(values, targets, offset)
        return values

    def _texts(self, batch: Step, step: int, offset: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and mask ``[T, B, L]`` of this process's texts, and the mask of all ranks' captions."""
        positions = self.corpus.positions(batch.batch.rows)
        captions = self.corpus.texts
        _, of_all = captions.batch(self.corpus.positions(batch.rows_of_all))
        ids, mask = captions.ids[positions, : of_all.shape[1]], of_all[offset : offset + len(positions)]
        if not self.corpus.sentences or not self.config.loss.texts_weight:
            return ids[None], mask[None], of_all
        generator = drawn_for("texts", self.config.seed, step)
        places, length = slice(offset, offset + len(positions)), ids.shape[1]
        other = self.corpus.sentence_samples(positions, generator, places)
        # A second text is never longer than the longest caption of the batch.
        second = F.pad(other.ids, (0, length))[:, :length]
        mask_of_second = torch.arange(length) < other.lengths[:, None]
        return torch.stack([ids, second]), torch.stack([mask, mask_of_second]), of_all

    def _measured(self, values: dict[str, Tensor], targets: StepTargets, offset: int) -> dict[str, Tensor]:
        """Entries of a log line besides the terms: on the image-text labels, and temperatures that learn."""
        spread = [target_entropy(of) for of in (targets.image_text, targets.text_image)]
        heads = self.unwrapped().heads
        learning = (name for name, value in heads.log_taus.items() if value.requires_grad)
        learnt = {f"tau_{name}": heads.tau(name).detach() for name in learning}
        return {
            "kl": values["image_text"],
            "diagonal": targets.image_text.diagonal(offset).mean(),
            "positives": torch.cat(spread).exp().mean(),
            **learnt,
        }

    def after_step(self) -> None:
        """Bounds of temperatures that learn."""
        self.unwrapped().heads.clamp()

    def ids(self, batch: Step) -> list[str]:
        """The image ids of this process's share of a batch."""
        return [self.corpus.store.image_ids[row] for row in batch.batch.rows.tolist()]

    def score(self) -> float:
        """Mean reciprocal rank of the dev part's own captions."""
        if self.selector is None:
            raise RuntimeError("there is no dev part to score")
        model = self.unwrapped().eval()
        count = len(self.selector)
        rows = rows_of_process(count, DEV_BATCH, self.accelerator)
        found = np.zeros(0, dtype=np.float32)
        if len(rows):
            with self.accelerator.autocast():
                found = self.selector(model, self.views.dev_tokens(rows), torch.as_tensor(rows)).cpu().numpy()
        return float(torch.as_tensor(gather_shares(rows, found, count)).mean())

    def save(self, output: Path, model: Any) -> None:
        """OUTPUT/checkpoint: a Med-VQA model folder with the heads beside it."""
        seen = pretraining_of(self.config.stage, self.corpus, self.exclusions)
        write_checkpoint(output, lambda folder: save_pretrained(folder, model, self.vqa, seen, self._history))

    def own_metadata(self) -> dict[str, Any]:
        """Counts of the corpus, and the size of the model; every process has to ask."""
        return {
            "stage": self.config.stage,
            **self.corpus.metadata(),
            "excluded": self.exclusions.metadata(),
            "broken_images": len(set(gather_object(self.corpus.images.broken))),
            **parameter_counts(self.unwrapped()),
        }

    def introduction(self) -> str:
        """Describe what is about to be trained, for a person, after a line for each thing that may not be meant."""
        corpus, config, left_out = self.corpus, self.config, self.exclusions.describe()
        warnings = [*self._warnings, *([left_out] if self.exclusions.empty else [])]
        notes = [
            "" if self.exclusions.empty else left_out,
            f"{corpus.without_text} without caption skipped" if corpus.without_text else "",
            f"{len(corpus.images.broken)} broken skipped" if corpus.images.broken else "",
        ]
        told = "; ".join(note for note in notes if note)
        labels = " + ".join(self._label_names) or "hard labels"
        streamed = f"\n{corpus.images.streamed}" if corpus.images.streamed else ""
        long = f"\n{corpus.captions}" if corpus.captions.longer else ""
        return "".join(f"warning: {line}\n" for line in warnings) + (
            f"pre-training {config.model.preset}, stage {config.stage}, with {labels} on {len(corpus.images):,} images "
            f"of {corpus.store.dataset}{f' ({told})' if told else ''}, {self.total_steps} steps of {self.batch_size}, "
            f"on {self.accelerator.device} -> {config.output}{long}{streamed}"
        )


def _describe(store: TargetStore, exclusions: Exclusions, labels: Sequence[LabelSource]) -> dict[str, Any]:
    """OUTPUT/data.json: the data, what was left out, and where soft labels come from; never a caption or an id."""
    return {
        "train": describe_data(store),
        "excluded": exclusions.metadata(),
        "soft_labels": [source.metadata() for source in labels],
    }
