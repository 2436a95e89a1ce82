"""A fine-tuning run, in the order in which it happens: questions, model, loop, selection, saving."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from kg_targets.manifest import Manifest
from kg_targets.store.digest import text_sha256
from training.clip.freeze import refuse_batch_norm
from training.data.files import image_digest
from training.engine.checkpoint import write_checkpoint
from training.engine.device import to_device
from training.engine.loop import Task, parameter_counts
from training.engine.outline import Outline
from training.engine.session import Prepared
from training.engine.sharing import slices
from training.med_vqa.answer import Answerer
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.finetune.data import FinetuneData, StepImages
from training.med_vqa.model.build import build_med_vqa, initial_digests, untrained_med_vqa
from training.med_vqa.model.history import FIELD, TrainedOn, TrainingHistory, as_json, save_trained_on
from training.med_vqa.model.images import ImageCondition, check_images_present
from training.med_vqa.model.saving import MedVQA, save_med_vqa
from training.vqa.answers import accepted_answers
from training.vqa.protocols import Split, prepare

KNOWN_TOKENS = 4
"""Word pieces of a known answer, where a run's memory is estimated."""


def prepare_run(config: FinetuneConfig) -> Prepared:
    """Find the questions and the images, which tell a run apart from others.

    Raises:
        KGTargetsError: the configuration, the questions or the images are not usable.
    """
    data = config.data
    manifest = Manifest.load(data.dataset, "questions")
    share = data.validation_share
    split = prepare(manifest, data.data_root, data.protocol, seed=data.split_seed, validation_share=share)
    if data.images == "real":
        check_images_present([*split.train, *split.validation], Path(data.data_root), data.max_broken)

    return Prepared(
        fingerprints=_data_digests(config, split) | initial_digests(config.model),
        precision=config.model.precision,
        data_metadata=partial(_describe, manifest, split, config.model.init_from),
        build=lambda accelerator: FinetuneRun(config, accelerator, build_med_vqa(config.model), split),
    )


def outline(config: FinetuneConfig) -> Outline:
    """What the run would need; questions and answers are taken as long as they may be."""
    data = config.data
    manifest = Manifest.load(data.dataset, "questions")
    share = data.validation_share
    split = prepare(manifest, data.data_root, data.protocol, seed=data.split_seed, validation_share=share)
    model = untrained_med_vqa(config.model)
    side = int(model.config.clip["model_cfg"]["vision_cfg"]["image_size"])
    known = len(split.candidates) if data.knowledge else 0

    def words(rows: int, length: int) -> Tensor:
        return torch.ones(rows, length, dtype=torch.int64)

    def forward(count: int) -> Tensor:
        questions, answers = words(count, data.max_question_tokens), words(count, data.max_answer_tokens)
        knowledge = words(known, KNOWN_TOKENS)
        with torch.set_grad_enabled(not config.model.lock_vision):
            tokens = model.image_tokens(torch.zeros(count, 3, side, side))
        output: dict[str, Tensor] = model(
            image_tokens=tokens, question_ids=questions, question_mask=questions, answer_ids=answers,
            answer_mask=answers, knowledge_ids=knowledge, knowledge_mask=knowledge, with_logits=False,
        )  # fmt: skip
        return output["loss"]

    shown = [*split.train, *split.validation] if data.images == "real" else []
    images = len({question.image_path for question in shown})
    return Outline(model, forward, len(split.train), "questions", images, side, in_memory=True)


class FinetuneRun(Task[Tensor]):
    """Questions about images, AMiF's model and its likelihood of the answers, for the engine's loop."""

    unit = "questions"
    measured_on = "validation"

    def __init__(self, config: FinetuneConfig, accelerator: Accelerator, vqa: MedVQA, split: Split) -> None:
        self.config, self.accelerator, self.vqa, self.split = config, accelerator, vqa, split
        # Before images are decoded and their tokens computed.
        if len(slices(config.data.batch_size // accelerator.num_processes, config.data.micro_batch)) > 1:
            refuse_batch_norm(vqa.model.train(), "data.micro_batch", "--model.lock_vision=true")
        self.data = FinetuneData(config.data, split, vqa)
        self._trained_on = TrainedOn.of(config, split)
        self.sampler = self.data.sampler(
            config.data.batch_size, config.seed, accelerator.process_index, accelerator.num_processes
        )
        self.batch_size, self.validate_every = config.data.batch_size, config.validate_every
        self.measure = "accuracy" if self.data.validation else None
        to_device(vqa.model, accelerator.device)
        self.inputs = StepImages(config, vqa, self.data.images, accelerator)
        self._knowledge = self._knowledge_arguments()
        self.learns(vqa.model, accelerator, config.optim, self.sampler.steps)

    def _knowledge_arguments(self) -> dict[str, Tensor]:
        """The gate's share of every step's arguments; the model encodes it once in each."""
        tokens, model = self.data.knowledge, self.vqa.model
        if not len(tokens):
            for part in (model.gate, model.knowledge_projection):
                part.requires_grad_(False)  # DDP would wait for gradients that never come
            return {}
        ids, mask = (part.to(self.accelerator.device) for part in tokens.batch(torch.arange(len(tokens))))
        return {"knowledge_ids": ids, "knowledge_mask": mask}

    def batches(self, epoch: int, skip: int, first_step: int) -> Iterator[Tensor]:
        """Positions of this process's training questions, int64 ``[B_local]``, step by step."""
        self.model.train()
        for positions in islice(self.sampler.epoch(epoch), skip, None):
            yield torch.as_tensor(positions)

    def backward(self, batch: Tensor, step: int, measured: bool) -> dict[str, Tensor]:
        """Gradients of the mean loss over all processes' answers, of which each has as many; scalars to log.

        The loss is a mean over answers: those of micro-batches add up to it by their shares, and so do the gradients.
        """
        accelerator, size = self.accelerator, len(batch)
        offset = accelerator.process_index * size
        texts = {
            name: value.to(accelerator.device, non_blocking=True)
            for name, value in self.data.batch(batch).items()
        }
        losses, right = [], []
        for start, stop in slices(size, self.config.data.micro_batch):
            images = self.inputs(self.data.image_rows[batch[start:stop]], step, offset + start)
            part = {name: value[start:stop] for name, value in texts.items()}
            # Processes exchange gradients once, after the last one.
            with nullcontext() if stop == size else accelerator.no_sync(self.model):
                output = self.model(**images, **part, **self._knowledge, with_logits=measured)
                loss = output["loss"] * ((stop - start) / size)
                accelerator.backward(loss)
            losses.append(loss.detach())
            if measured:
                right.append(output["logits"].argmax(dim=-1) == part["answer_ids"][:, 1:])
        values = {"loss": torch.stack(losses).sum()}
        if measured:
            values["token_accuracy"] = torch.cat(right)[texts["answer_mask"][:, 1:]].float().mean()
        return values

    def ids(self, batch: Tensor) -> list[str]:
        """The question ids of this process's share of a batch."""
        return [self.data.train[position].id for position in batch.tolist()]

    def score(self) -> float:
        """Share of the validation questions that exact ranking of all candidates answers correctly."""
        accelerator, data = self.accelerator, self.data
        share = data.validation[accelerator.process_index :: accelerator.num_processes]
        shown = ImageCondition(data.images, self.vqa)
        found = self._answerer.answer_about(
            [shown.name(question) for question in share],
            [question.question for question in share],
            shown.read,
            mode="winner",
        )
        language = self.split.language
        right = []
        for row, (best,) in found:
            right.append(best.text in accepted_answers(share[row], language))
            self.scored = f"{len(right):,} of {len(share):,} questions"
        right_of_all: list[bool] = gather_object(right)
        return sum(right_of_all) / len(right_of_all)

    @cached_property
    def _answerer(self) -> Answerer:
        return Answerer(
            self.vqa,
            self.data.answers,
            self.accelerator.device,
            self.config.model.precision,
            max_question_tokens=self.config.data.max_question_tokens,
        )

    def save(self, output: Path, model: Any) -> None:
        """OUTPUT/checkpoint, for ``training.med_vqa.model.saving.load_med_vqa``."""

        def write(folder: Path) -> None:
            save_med_vqa(folder, model, self.vqa.tokenizer, self.data.answers)
            save_trained_on(folder, self._trained_on)

        write_checkpoint(output, write)

    def own_metadata(self) -> dict[str, Any]:
        """Counts of questions and images, and the size of the model."""
        return {
            **self.data.metadata(),
            "padding_waste": round(self.sampler.padding_waste(), 4),
            **parameter_counts(self.vqa.model),
        }

    def introduction(self) -> str:
        """Describe what is about to be trained, for a person."""
        images, split = self.data.images, self.split
        seen = "blank images" if images is None else f"{len(images):,} images"
        broken = f" ({len(images.broken)} broken skipped)" if images and images.broken else ""
        return (
            f"fine-tuning {self.config.model.preset} on {split.dataset}, protocol {split.protocol}: "
            f"{len(self.data.train):,} questions about {seen}{broken}, {len(split.candidates):,} candidates "
            f"({split.candidate_source}), {self.total_steps} steps of {self.batch_size}, on "
            f"{self.accelerator.device} -> {self.config.output}\n{self.data.coverage}"
        )


def _data_digests(config: FinetuneConfig, split: Split) -> dict[str, str]:
    """Digests of the questions that train and select with their answers, and of the images that are shown."""
    questions = [*split.train, *split.validation]
    content = [
        [[q.id, q.image_path, q.question, *accepted_answers(q, split.language)] for q in part]
        for part in (split.train, split.validation)
    ]
    # Candidates twice: digests of before had those that the gate sees apart.
    text = json.dumps([content, split.candidates, split.candidates], ensure_ascii=False)
    shown = config.data.images != "blank"
    paths = sorted({question.image_path for question in questions if question.image_path}) if shown else []
    images = image_digest(Path(config.data.data_root), paths)
    return {"the questions and answers": text_sha256(text), "the images": images}


def _describe(manifest: Manifest, split: Split, start: str | None) -> dict[str, Any]:
    """OUTPUT/data.json: counts, where answers come from, pre-training runs of the initial model; never a question."""
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
