"""The data of a fine-tuning run: questions and answers as tokens, in batches of about one length, and their images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.manifest import Question
from training.data.samplers.base import Sampler
from training.med_vqa.finetune.config import FinetuneConfig, VQADataConfig
from training.med_vqa.model.images import ImageTable, Views, blank_images
from training.med_vqa.model.saving import Answers, MedVQA
from training.med_vqa.model.tokens import (
    Coverage,
    answers_as_tokens,
    check_positions,
    knowledge_as_tokens,
    questions_as_tokens,
)
from training.vqa.answers import accepted_answers
from training.vqa.protocols import Split

POOL = 16
"""Batches that are made of one sorted pool: more of them waste less padding, fewer mix questions better."""


@dataclass(frozen=True)
class QuestionSampler(Sampler):
    """Batches of questions of about one length: a new order each epoch, sorted within pools of ``POOL`` batches.

    The remainder of an epoch is drawn before questions are sorted, so that none is left out for its length.
    Every process gets the same number of questions of each step.
    """

    what: ClassVar[str] = "training questions"
    least: ClassVar[int] = 1
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    """Tokens of each question, int64 ``[images]``."""

    def batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Positions of all processes' questions, int64 ``[batch_size]``, step by step."""
        order, generator = self.shuffled(epoch)
        order = order[: self.steps * self.batch_size]
        made: list[NDArray[np.int64]] = []
        for start in range(0, len(order), POOL * self.batch_size):
            pool = order[start : start + POOL * self.batch_size]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            made += np.split(pool, range(self.batch_size, len(pool), self.batch_size))
        for place in torch.randperm(self.steps, generator=generator).tolist():
            yield made[place]

    def padding_waste(self, epoch: int = 1) -> float:
        """Share of the question tokens of an epoch, over all processes, that is padding, in [0, 1)."""
        shape = (self.steps, self.world_size, self.batch_size // self.world_size)
        lengths = self.lengths[np.concatenate(list(self.batches(epoch)))].reshape(shape)
        padded = lengths.max(axis=2).sum() * shape[2]
        return float(1 - lengths.sum() / padded)


class FinetuneData:
    """The training part of a split to learn from, its validation part to choose by, and never its test part.

    Args:
        data: the run's ``data``.
        split: the data set under its protocol.
        vqa: whose tokenizer, size and preprocessing to use.

    Raises:
        ConfigError: texts may be longer than the model's positions, or its tokenizer does not know their words.
        DataError: images are missing or broken beyond ``data.max_broken``.
    """

    def __init__(self, data: VQADataConfig, split: Split, vqa: MedVQA) -> None:
        check_positions("max_question_tokens", data.max_question_tokens, vqa.model.text)
        check_positions("max_answer_tokens", data.max_answer_tokens, vqa.model.decoder)
        self._split = split
        self.images: ImageTable | None = None
        """None: every image is blank."""
        if data.images == "real":
            everything = [*split.train, *split.validation]
            self.images = ImageTable(everything, Path(data.data_root), vqa, data.max_broken)
        self.train, self.validation = self._shown(split.train), self._shown(split.validation)
        """Questions whose images can be shown."""
        self.answers = Answers(
            candidates=list(split.candidates),
            knowledge=list(split.candidates) if data.knowledge else [],
            protocol=split.protocol,
            dataset=split.dataset,
            source=split.candidate_source,
        )
        asked = [question.question for question in self.train]
        said = [accepted_answers(question, split.language)[0] for question in self.train]
        self.coverage = Coverage.of(asked, said, vqa.tokenizer)
        self.coverage.check(data.max_unknown, split.dataset, split.language)
        self.questions = questions_as_tokens(asked, vqa.tokenizer, data.max_question_tokens)
        self.right_answers = answers_as_tokens(said, vqa.tokenizer, data.max_answer_tokens)
        """Answers to the training questions; the first one where several are right."""
        self.knowledge = knowledge_as_tokens(self.answers.knowledge, vqa.tokenizer)
        none = torch.zeros(len(self.train), dtype=torch.int64)
        self.image_rows = none if self.images is None else self.images.rows(self.train)
        """Rows of ``images`` that the training questions are about, int64."""

    def _shown(self, questions: Sequence[Question]) -> list[Question]:
        return [question for question in questions if self.images is None or self.images.has(question)]

    def sampler(self, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> QuestionSampler:
        """Sampler of the training questions.

        Raises:
            ConfigError: the batch size does not fit the questions or the processes.
        """
        lengths = self.questions.lengths.numpy()
        return QuestionSampler(len(self.train), batch_size, seed, rank, world_size, lengths=lengths)

    def batch(self, positions: Tensor) -> dict[str, Tensor]:
        """The texts of training questions as arguments of the model's forward pass, each padded to its longest."""
        names = ("question_ids", "question_mask", "answer_ids", "answer_mask")
        texts = *self.questions.batch(positions), *self.right_answers.batch(positions)
        return dict(zip(names, texts, strict=True))

    def metadata(self) -> dict[str, Any]:
        """Counts for metrics.json."""
        images, split, shown = self.images, self._split, len(self.train) + len(self.validation)
        return {
            "questions": len(self.train),
            "validation_questions": len(self.validation),
            "images": 0 if images is None else len(images),
            "broken_images": 0 if images is None else len(images.broken),
            "questions_without_image": len(split.train) + len(split.validation) - shown,
            "questions_truncated": self.questions.truncated,
            "answers_truncated": self.right_answers.truncated,
            "unknown_tokens": round(self.coverage.unknown, 4),
            "answers_colliding": self.coverage.answers - self.coverage.sequences,
            "skipped": split.skipped,
            "candidates": len(self.answers.candidates),
            "knowledge": len(self.knowledge),
        }


class StepImages:
    """A step's images as the model takes them: augmented pixels, cached tokens, or the mean colour.

    Args:
        config: the run's.
        vqa: the model, on the accelerator's device.
        images: None: every image is blank.
        accelerator: the run's.

    Raises:
        KGTargetsError: as of ``Views.keep_tokens``.
    """

    def __init__(
        self, config: FinetuneConfig, vqa: MedVQA, images: ImageTable | None, accelerator: Accelerator
    ) -> None:
        data = config.data
        self._images, self._kept = images, data.cached_views > 0
        self._views = Views(data, data.batch_size, config.seed, vqa, accelerator)
        if images is not None and self._kept:
            self._views.keep_tokens(images.pixels, data.cached_mb)
        blank = blank_images(vqa, 1).to(accelerator.device)
        self._blank = {"images": blank}
        if images is None and config.model.lock_vision:
            with torch.no_grad():
                self._blank = {"image_tokens": vqa.model.image_tokens(blank)}

    def __call__(self, rows: Tensor, step: int, offset: int) -> dict[str, Tensor]:
        """Arguments of the model's forward pass.

        Args:
            rows: of the images of this process's questions, int64 ``[B_local]``.
            step: counted from 1.
            offset: of the first of them in the global batch.

        Returns:
            ``images`` ``[B_local, 3, S, S]`` or ``image_tokens`` ``[B_local, N, D]``, float32, on the device.
        """
        if self._images is None:
            return {name: one.expand(len(rows), *one.shape[1:]) for name, one in self._blank.items()}
        shown = self._views([rows if self._kept else self._images.pixels[rows]], step, offset)
        return {name: views[0] for name, views in shown.items()}
