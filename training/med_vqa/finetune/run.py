"""A fine-tuning run: material, model and optimizer, put together for the engine's loop."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.engine.checkpoint import write_checkpoint
from training.engine.schedule import make_optimizer, make_schedule
from training.med_vqa.finetune.config import FinetuneConfig
from training.med_vqa.finetune.data import FinetuneData, StepImages
from training.med_vqa.model.history import TrainedOn, save_trained_on
from training.med_vqa.model.images import ImageCondition
from training.med_vqa.model.saving import MedVQA, save_med_vqa
from training.vqa.protocols import Split

if TYPE_CHECKING:
    from training.med_vqa.answer import Answerer


class FinetuneRun:
    """The task that the loop runs (``training.engine.loop.Task``)."""

    def __init__(self, config: FinetuneConfig, accelerator: Accelerator, vqa: MedVQA, split: Split) -> None:
        self.config, self.accelerator, self.vqa, self.split = config, accelerator, vqa, split
        self.data = FinetuneData(config.data, split, vqa)
        self._trained_on = TrainedOn.of(config, split)
        self.sampler = self.data.sampler(
            config.data.batch_size, config.seed, accelerator.process_index, accelerator.num_processes
        )
        self.unit, self.batch_size = "questions", config.data.batch_size
        self.measure: str | None = "accuracy" if self.data.validation else None
        all_steps = self.sampler.steps * config.optim.epochs
        self.total_steps = min(all_steps, config.optim.max_steps or all_steps)
        vqa.model.to(accelerator.device)
        self.inputs = StepImages(config, vqa, self.data.images, accelerator)
        self._knowledge = self._knowledge_arguments()
        optimizer = make_optimizer(vqa.model, config.optim)
        self.model: nn.Module = accelerator.prepare(vqa.model)
        self.optimizer: Optimizer = accelerator.prepare(optimizer)
        self.schedule: LRScheduler = make_schedule(optimizer, config.optim, self.total_steps)

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
        """Gradients of the mean loss over all processes' answers, of which each has as many; scalars to log."""
        device = self.accelerator.device
        offset = self.accelerator.process_index * len(batch)
        texts = {name: value.to(device) for name, value in self.data.batch(batch).items()}
        images = self.inputs(self.data.image_rows(batch), step, offset)
        output = self.model(**images, **texts, **self._knowledge, with_logits=measured)
        self.accelerator.backward(output["loss"])
        values = {"loss": output["loss"].detach()}
        if measured:
            right = output["logits"].argmax(dim=-1) == texts["answer_ids"][:, 1:]
            values["token_accuracy"] = right[texts["answer_mask"][:, 1:]].float().mean()
        return values

    def after_step(self) -> None:
        """No parameter has bounds."""

    def ids(self, batch: Tensor) -> list[str]:
        """The question ids of this process's share of a batch."""
        return [self.data.train[position].id for position in batch.tolist()]

    def measured_after(self, epoch: int) -> bool:
        """Every ``validate_every`` epochs."""
        return epoch % self.config.validate_every == 0

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
        right = [data.is_right(best.text, share[row]) for row, (best,) in found]
        everyone: list[bool] = gather_object(right)
        return sum(everyone) / len(everyone)

    @cached_property
    def _answerer(self) -> "Answerer":
        from training.med_vqa.answer import Answerer

        return Answerer(
            self.vqa,
            self.data.answers,
            self.accelerator.device,
            self.config.model.precision,
            max_question_tokens=self.config.data.max_question_tokens,
        )

    def save(self, output: Path) -> None:
        """OUTPUT/checkpoint, for ``training.med_vqa.model.saving.load_med_vqa``."""

        def write(folder: Path) -> None:
            save_med_vqa(folder, self.vqa.model, self.vqa.tokenizer, self.data.answers)
            save_trained_on(folder, self._trained_on)

        write_checkpoint(output, write)

    def waited(self) -> float:
        """Nothing is waited for: all is in memory."""
        return 0.0

    def data_state(self) -> Any:
        """Nothing changes while training."""

    def load_data_state(self, state: Any) -> None:
        """Nothing to know again."""

    def facts(self) -> dict[str, Any]:
        """What metrics.json records of the run, whichever epoch was chosen."""
        parameters = list(self.vqa.model.parameters())
        return {
            "steps": self.total_steps,
            **self.data.facts(),
            "padding_waste": round(self.sampler.padding_waste(), 4),
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "threads": torch.get_num_threads(),
            "selected_by": f"validation {self.measure}" if self.measure else "last epoch",
        }

    def introduction(self) -> str:
        """What is about to be trained, for a person."""
        images, split = self.data.images, self.split
        seen = "blank images" if images is None else f"{len(images):,} images"
        broken = f" ({len(images.broken)} broken skipped)" if images and images.broken else ""
        return (
            f"fine-tuning {self.config.model.preset} on {split.dataset}, protocol {split.protocol}: "
            f"{len(self.data.train):,} questions about {seen}{broken}, {len(split.candidates):,} candidates "
            f"({split.candidate_source}), {self.total_steps} steps of {self.batch_size}, on "
            f"{self.accelerator.device} -> {self.config.output}"
        )
