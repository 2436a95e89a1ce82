"""What a fine-tuning works with: its questions and answers as tokens, and the images that they are about."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import ConfigError
from training.med_vqa.finetune.config import VQADataConfig
from training.med_vqa.model.batches import (
    QuestionSampler,
    answers_as_tokens,
    knowledge_as_tokens,
    questions_as_tokens,
)
from training.med_vqa.model.pictures import Pictures
from training.med_vqa.model.saving import Answers, MedVQA
from training.vqa.items import Question
from training.vqa.protocols import Split


class Material:
    """The training part of a split to learn from, its validation part to choose by, and never its test part.

    Args:
        data: the run's ``data``.
        split: the data set under its protocol.
        vqa: whose tokenizer, size and preprocessing to use.

    Raises:
        ConfigError: texts may be longer than the model's positions.
        DataError: images are missing or broken beyond ``data.max_broken``.
    """

    def __init__(self, data: VQADataConfig, split: Split, vqa: MedVQA) -> None:
        _check_lengths(data, vqa)
        self._split = split
        self.pictures: Pictures | None = None
        """None: every image is blank."""
        if data.images == "real":
            everything = [*split.train, *split.validation]
            self.pictures = Pictures(everything, Path(data.data_root), vqa, data.max_broken)
        self.train, self.validation = self._shown(split.train), self._shown(split.validation)
        """Questions whose images can be shown."""
        self.answers = Answers(
            candidates=list(split.candidates),
            knowledge=list(split.knowledge) if data.knowledge else [],
            protocol=split.protocol,
            dataset=split.dataset,
            source=split.candidate_source,
        )
        self.questions = questions_as_tokens(
            [question.question for question in self.train], vqa.tokenizer, data.max_question_tokens
        )
        self.right_answers = answers_as_tokens(
            [question.accepted(split.language)[0] for question in self.train],
            vqa.tokenizer,
            data.max_answer_tokens,
        )
        """Of the training questions; the first one where several are right."""
        self.knowledge = knowledge_as_tokens(self.answers.knowledge, vqa.tokenizer)
        self._picture_rows = (
            torch.zeros(len(self.train), dtype=torch.int64)
            if self.pictures is None
            else self.pictures.rows(self.train)
        )

    def _shown(self, questions: Sequence[Question]) -> list[Question]:
        return [question for question in questions if self.pictures is None or self.pictures.has(question)]

    def sampler(self, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> QuestionSampler:
        """Which training questions make up which step.

        Raises:
            ConfigError: the batch size does not fit the questions or the processes.
        """
        lengths = self.questions.lengths.numpy()
        return QuestionSampler(len(self.train), batch_size, seed, rank, world_size, lengths=lengths)

    def batch(self, positions: Tensor) -> dict[str, Tensor]:
        """The texts of training questions as arguments of the model's forward pass, each padded to its longest."""
        question_ids, question_mask = self.questions.batch(positions)
        answer_ids, answer_mask = self.right_answers.batch(positions)
        return {
            "question_ids": question_ids,
            "question_mask": question_mask,
            "answer_ids": answer_ids,
            "answer_mask": answer_mask,
        }

    def picture_rows(self, positions: Tensor) -> Tensor:
        """Rows of ``pictures`` that training questions are about, int64 ``[B]``."""
        return self._picture_rows[positions]

    def is_right(self, answer: str, question: Question) -> bool:
        """Whether a candidate is one of a question's right answers."""
        return answer in question.accepted(self._split.language)

    def facts(self) -> dict[str, Any]:
        """Counts for metrics.json."""
        pictures, split = self.pictures, self._split
        shown = len(self.train) + len(self.validation)
        return {
            "questions": len(self.train),
            "validation_questions": len(self.validation),
            "images": 0 if pictures is None else len(pictures),
            "broken_images": 0 if pictures is None else len(pictures.broken),
            "questions_without_image": len(split.train) + len(split.validation) - shown,
            "questions_cut": self.questions.cut,
            "answers_cut": self.right_answers.cut,
            "skipped": split.skipped,
            "candidates": len(self.answers.candidates),
            "knowledge": len(self.knowledge),
        }


def _check_lengths(data: VQADataConfig, vqa: MedVQA) -> None:
    for field, part in (("max_question_tokens", vqa.model.text), ("max_answer_tokens", vqa.model.decoder)):
        asked, limit = getattr(data, field), part.config.max_position_embeddings
        if asked > limit:
            raise ConfigError(f"data.{field}: {asked} exceeds the model's {limit} positions: lower it")
