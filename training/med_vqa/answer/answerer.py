"""A Med-VQA model that answers questions about images, and the folder that such a model is loaded from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from training.checks import one_of, within
from training.clip.config import PRECISIONS
from training.engine.checkpoint import CONFIG, FINISHED
from training.errors import CheckpointError, ConfigError, ShapeError
from training.med_vqa.answer.modes import MODES, Answer, Chooser
from training.med_vqa.answer.ranking import CHUNK, Candidates
from training.med_vqa.model.history import TrainedOn, load_trained_on
from training.med_vqa.model.saving import (
    Answers,
    MedVQA,
    folder_digest,
    load_answers,
    load_med_vqa,
    model_folder,
)
from training.med_vqa.model.tokens import Tokens, knowledge_as_tokens, questions_as_tokens

SHORTLIST = 32
"""Candidates of a short-list, as in AMiF's released code."""
BATCH = 16
"""Questions decoded, or images encoded, at a time."""
AT_ONCE = 32
"""Images whose tokens are held at a time."""

Images = Tensor | Sequence[Image.Image]


class Answerer:
    """Answers by ranking candidates, all of them or a short-list, or freely.

    Nothing of the model's weights is kept between two calls: it may learn in between.

    Args:
        med_vqa: model and tokenizer; the model is moved to ``device``.
        answers: candidates to rank, and the answers whose words inform the gate.
        device: where it runs.
        precision: fp32, or bf16 or fp16 (GPU only) for automatic mixed precision; probabilities are float32 in all.
        batch: questions decoded at a time.
        chunk: prefixes of candidates decoded at a time.
        max_question_tokens: word pieces of a question, [CLS] and [SEP] included; longer ones lose their end.

    Raises:
        DataError: a candidate normalises or tokenises to nothing, or is too long.
        ConfigError: the precision is not possible on the device.
    """

    def __init__(
        self,
        med_vqa: MedVQA,
        answers: Answers,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        *,
        batch: int = BATCH,
        chunk: int = CHUNK,
        max_question_tokens: int = TrainedOn.max_question_tokens,
    ) -> None:
        one_of("precision", precision, PRECISIONS)
        self._device = torch.device(device)
        if precision == "fp16" and self._device.type == "cpu":
            raise ConfigError("precision fp16 needs a GPU: choose bf16 or fp32 on a CPU")
        self._precision, self._batch, self._chunk = precision, batch, chunk
        self._model, self._tokenizer = med_vqa.model, med_vqa.tokenizer
        self._model.to(self._device)  # type: ignore[arg-type]  # transformers' wrapper hides the argument
        self._longest_question = min(max_question_tokens, self._model.text.config.max_position_embeddings)
        longest_answer = self._model.decoder.config.max_position_embeddings - 1
        self.preprocess: Callable[[Image.Image], Tensor] = med_vqa.preprocess
        """An image, mode L or RGB, to the model's input, float32 ``[3, S, S]``."""
        self.candidates = Candidates.of(answers.candidates, self._tokenizer, longest_answer)
        """Answers that ranking chooses from."""
        self._knowledge = knowledge_as_tokens(answers.knowledge, self._tokenizer)

    def tokens(self, questions: Sequence[str]) -> Tokens:
        """Questions as the model reads them; ``truncated`` of them were too long."""
        return questions_as_tokens(questions, self._tokenizer, self._longest_question)

    def knows(self, question: str) -> bool:
        """True if any word piece of a question is in the vocabulary."""
        pieces: set[int] = set(self.tokens([question]).ids[0].tolist())
        return not pieces <= set(self._tokenizer.all_special_ids)

    @torch.inference_mode()
    def image_tokens(self, images: Images) -> Tensor:
        """Images to tokens ``[B, N, Dv]``, which serve any number of questions.

        Args:
            images: preprocessed and normalised, float ``[B, 3, S, S]``, or of mode L or RGB; at least one.
        """
        parts = []
        with self._at_work():
            for start in range(0, len(images), self._batch):
                part = images[start : start + self._batch]
                if not isinstance(part, Tensor):
                    part = torch.stack([self.preprocess(image) for image in part])
                parts.append(self._model.image_tokens(part.to(self._device)))
        return torch.cat(parts)

    @torch.inference_mode()
    def answer(
        self,
        images: Images | None,
        questions: Sequence[str],
        *,
        image_tokens: Tensor | None = None,
        mode: str = "exact",
        k: int = SHORTLIST,
        top: int = 1,
    ) -> list[list[Answer]]:
        """The ``top`` answers to each question, the likeliest first; equally likely ones in the candidates' order.

        Args:
            images: one for each question, as for ``image_tokens``; or None and
            image_tokens: ``[B, N, Dv]``, computed before.
            questions: B texts.
            mode: ``exact`` ranks all candidates, ``shortlist`` those ``k`` whose first tokens are the likeliest,
                ``winner`` those, and all where that leaves doubt; ``generate`` gives one answer in the model's own
                words.
            k: at least 1.
            top: at least 1; where fewer are ranked, fewer come back.

        Raises:
            ConfigError: an option is not possible, or there are no candidates to rank.
            ShapeError: there are not as many images as questions.
            CheckpointError: the model's likelihoods are not finite numbers.
        """
        one_of("mode", mode, tuple(MODES))
        within("k", k, 1, None)
        within("top", top, 1, None)
        given = image_tokens if images is None else images
        if given is None or len(given) != len(questions):
            count = 0 if given is None else len(given)
            raise ShapeError(
                f"{len(questions)} questions and {count} images: give one image for each question"
            )
        texts = self.tokens(questions)
        answers: list[list[Answer]] = []
        with self._at_work():
            chooser = Chooser(self._model, self._tokenizer, self.candidates, k, top, self._chunk)
            knowledge = None
            if len(self._knowledge):
                ids, mask = self._knowledge.batch(torch.arange(len(self._knowledge)))
                knowledge = self._model.knowledge(ids.to(self._device), mask.to(self._device))
            for start in range(0, len(questions), self._batch):
                rows = torch.arange(start, min(start + self._batch, len(questions)))
                here = given[start : start + self._batch]
                seen = self.image_tokens(here) if images is not None else torch.as_tensor(here)
                ids, mask = (part.to(self._device) for part in texts.batch(rows))
                encoded = self._model.encode(seen.to(self._device), ids, mask, knowledge)
                answers += MODES[mode](chooser, self._model.precompute_cross_attention_kv(encoded))
        return answers

    def answer_about(
        self, names: Sequence[str], questions: Sequence[str], read: Callable[[str], Tensor], **options: Any
    ) -> Iterator[tuple[int, list[Answer]]]:
        """``answer`` about images that are read by name, each once, however many questions are about it.

        Args:
            names: image of each question.
            questions: as many.
            read: a name to the preprocessed image, float ``[3, S, S]``.
            options: ``mode``, ``k`` and ``top`` of ``answer``.

        Yields:
            The number of a question and its answers, image by image in the order in which they first occur.
        """
        about: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            about.setdefault(name, []).append(row)
        pending = iter(about)
        while group := list(islice(pending, AT_ONCE)):
            tokens = self.image_tokens(torch.stack([read(name) for name in group]))
            rows = [(place, row) for place, name in enumerate(group) for row in about[name]]
            seen = tokens[[place for place, _ in rows]]
            answers = self.answer(None, [questions[row] for _, row in rows], image_tokens=seen, **options)
            yield from zip((row for _, row in rows), answers, strict=True)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The model in eval mode and at the precision asked for; afterwards in the mode that it was in."""
        was_training = self._model.training
        dtype = torch.float16 if self._precision == "fp16" else torch.bfloat16
        self._model.train(False)
        try:
            with torch.autocast(self._device.type, dtype, enabled=self._precision != "fp32"):
                yield
        finally:
            self._model.train(was_training)


@dataclass(frozen=True)
class Saved:
    """A model folder, loaded, with what tells it from others and what is known of the run that trained it."""

    folder: Path
    """Folder of its files."""
    med_vqa: MedVQA
    answers: Answers
    training: TrainedOn | None
    """Its training, by its own record or else by the run that the folder belongs to; None: not known."""

    @classmethod
    def of(cls, folder: Path) -> "Saved":
        """Load a run's checkpoint, or a model folder.

        Raises:
            CheckpointError: it is neither, is damaged, or the run is not finished.
        """
        model = model_folder(folder)
        answers = load_answers(model)
        training = load_trained_on(model) or _of_run(model.absolute().parent, answers)
        return cls(model, load_med_vqa(model), answers, training)

    @cached_property
    def digest(self) -> str:
        """sha256 over the folder's files."""
        return folder_digest(self.folder)

    @property
    def recorded(self) -> TrainedOn:
        """Its training, or defaults where that is not known."""
        return self.training or TrainedOn(self.answers.dataset, self.answers.protocol)

    @property
    def seed(self) -> int | None:
        """Seed of its training run, where it is known."""
        return None if self.training is None else self.training.seed

    def answerer(self, precision: str | None = None) -> Answerer:
        """The model on the GPU, if there is one, by default at the precision of its training run.

        Raises:
            DataError: a candidate cannot be ranked.
            ConfigError: the precision is not possible on the device.
        """
        return Answerer(
            self.med_vqa,
            self.answers,
            "cuda" if torch.cuda.is_available() else "cpu",
            precision or self.recorded.precision,
            max_question_tokens=self.recorded.max_question_tokens,
        )


def _of_run(run: Path, answers: Answers) -> TrainedOn | None:
    """Record of a model without one, from its finished run's configuration, which does not hold its questions."""
    if not (run / FINISHED).is_file():
        return None
    try:
        config = dict(yaml.safe_load((run / CONFIG).read_text(encoding="utf-8")))
        return TrainedOn.of_config(config, answers.dataset, answers.protocol)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{run / CONFIG} is missing or damaged: train the run again") from error
