"""The training loop: steps, epochs, saved states and the log of a run, whatever it trains.

A run is continued identically after a kill at any moment: everything random is a function of (seed, epoch, step, rank),
and what the next step depends on is in OUTPUT/state (training/engine/state.py).
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from training.engine.config import OptimConfig, RunConfig
from training.engine.process import StopRequest
from training.engine.sharding import ShardingAccelerator, load_moments, load_weights, whole, whole_moments
from training.engine.state import Progress, load_state, save_state
from training.engine.tracking import Tracker
from training.errors import DataError

B = TypeVar("B")
T = TypeVar("T")


class Loading(Protocol):
    """Reader of a task's data."""

    waited: float
    """Seconds that steps have waited for it so far."""

    def state(self) -> Any:
        """State of reading in this process, as JSON values."""
        ...

    def load_state(self, state: Any) -> None:
        """Take a state back."""
        ...


class Task(ABC, Generic[B]):
    """A training task as the loop sees it; each is a class of its own with what is abstract here."""

    accelerator: Accelerator
    model: nn.Module
    """Prepared by accelerate; so is the optimizer. ``learns`` sets these four."""
    optimizer: Optimizer
    schedule: LRScheduler
    total_steps: int
    """Optimizer steps of the whole run."""
    unit: str = "images"
    """Name of what a batch holds, in the plural."""
    batch_size: int
    """Units in a step, over all processes."""
    measure: str | None = None
    """Name of the measure that chooses the epoch to keep; None keeps the last."""
    measured_on: str = "dev"
    """The part of the data that it is measured on."""
    scored: str = ""
    """How far a measurement is, for people; empty where it does not tell."""
    validate_every: int = 1
    """Epochs between two measurements; after the last epoch there is one in any case."""
    loader: Loading | None = None
    """None: all data are in memory."""
    _waited: float = 0.0

    def learns(
        self, learner: nn.Module, accelerator: Accelerator, config: OptimConfig, steps_per_epoch: int
    ) -> None:
        """Optimizer and schedule for what learns, all prepared for several processes.

        Args:
            learner: on the accelerator's device; what is frozen already is not optimised.
            accelerator: the run's.
            config: how it is optimised, and for how long.
            steps_per_epoch: optimizer steps.
        """
        all_steps = steps_per_epoch * config.epochs
        self.total_steps = min(all_steps, config.max_steps or all_steps)
        self.model = accelerator.prepare(learner.to(accelerator.device))  # may split its parameters
        optimizer = make_optimizer(learner, config)
        self.optimizer = accelerator.prepare(optimizer)
        self.schedule = make_schedule(optimizer, config, self.total_steps)

    @abstractmethod
    def batches(self, epoch: int, skip: int, first_step: int) -> Iterator[B]:
        """This process's batches of an epoch after the first ``skip``; ``first_step`` is the step of the next one."""

    @abstractmethod
    def backward(self, batch: B, step: int, measured: bool) -> dict[str, Tensor]:
        """Accumulate the step's gradients; scalars to log, ``loss`` among them, the rest if ``measured``."""

    def after_step(self) -> None:
        """Keep parameters in their bounds."""

    @abstractmethod
    def ids(self, batch: B) -> list[str]:
        """Names of what this process's batch holds, for an error."""

    @abstractmethod
    def score(self) -> float:
        """The measure of the model as it is; the same on every process."""

    @abstractmethod
    def save(self, output: Path, model: Any) -> None:
        """Write the model, as ``whole`` gave it, as the one chosen so far."""

    def unwrapped(self) -> Any:
        """The model itself, without what several processes or compilation have put around it: names are its own."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def whole(self) -> Any:
        """The model itself with all its weights, a copy where processes hold parts; every process has to ask."""
        model = self.unwrapped()
        return self.accelerator.whole(model) if isinstance(self.accelerator, ShardingAccelerator) else model

    def waited(self) -> float:
        """Seconds that steps have waited for data so far."""
        return self._waited + (self.loader.waited if self.loader else 0.0)

    def result(self, ahead: "Future[T]") -> T:
        """Result of a thread; the wait for it counts in ``waited``."""
        began = time.perf_counter()
        found = ahead.result()
        self._waited += time.perf_counter() - began
        return found

    @abstractmethod
    def own_metadata(self) -> dict[str, Any]:
        """Entries of metrics.json besides those of ``metadata``; every process has to ask."""

    def metadata(self) -> dict[str, Any]:
        """Entries of metrics.json whichever epoch was chosen; every process has to ask."""
        return {
            "steps": self.total_steps,
            **self.own_metadata(),
            "threads": torch.get_num_threads(),
            "selected_by": f"{self.measured_on} {self.measure}" if self.measure else "last epoch",
        }

    @abstractmethod
    def introduction(self) -> str:
        """One line for people: what is about to be trained."""


def one_ahead(batches: Iterator[B]) -> Iterator[B]:
    """Each batch once the next one is there: what a thread does for that one, it does during this one's step."""
    ahead: B | None = None
    for batch in batches:
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters, for metrics.json."""
    parameters = list(model.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }


class Loop(Generic[B]):
    """Runs a task from wherever its folder says it is to the end, or to a request to stop."""

    def __init__(self, config: RunConfig, accelerator: Accelerator, task: Task[B], key: str) -> None:
        self.config, self.accelerator, self.task, self.key = config, accelerator, task, key
        self.output = Path(config.output)
        self.progress = Progress()
        self._saved = time.monotonic()

    def restore(self) -> None:
        """Go on from the saved state.

        Raises:
            CheckpointError: it is damaged or does not fit.
        """
        state = load_state(self.output, self.accelerator.num_processes)
        load_weights(self.task.unwrapped(), state.model)
        for name, part in self._stateful().items():
            if name == "optimizer":
                load_moments(part, state.optimizer[name])
            else:
                part.load_state_dict(state.optimizer[name])
        if self.task.loader is not None:
            self.task.loader.load_state(state.data[self.accelerator.process_index])
        self.progress = state.progress

    def run(self, tracker: Tracker, stop: StopRequest) -> bool:
        """All steps that are left.

        Returns:
            False if a request to stop ended it; the state is saved.

        Raises:
            DataError: the loss is not finite; data cannot be read.
            CheckpointError: OUTPUT cannot be written.
        """
        progress, total = self.progress, self.task.total_steps
        while progress.step < total:
            batches = self.task.batches(progress.epoch, progress.step_in_epoch, progress.step + 1)
            for batch in batches:
                progress.step += 1
                progress.step_in_epoch += 1
                self._step(batch, tracker)
                if progress.step >= total:
                    break
                if self._asked_to_stop(stop):
                    self._save_state()
                    return False
                every = self.config.save.every
                if every and progress.step % every == 0:
                    with tracker.paused():
                        self._save_state()
            with tracker.paused():
                self._end_epoch(tracker)
                progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
                if self.config.save.every or self._long_since_saved():
                    self._save_state()
        return True

    def _step(self, batch: B, tracker: Tracker) -> None:
        config, accelerator, step = self.config.optim, self.accelerator, self.progress.step
        measured = tracker.due(step)
        seed = (self.config.seed * 1_000_003 + step) * 4096 + accelerator.process_index
        torch.manual_seed(seed)  # dropout's draws too are a function of the step
        values = self.task.backward(batch, step, measured)
        values["grad_norm"] = self._clip(config.clip_norm, values["loss"], batch)
        values["lr"] = torch.tensor(self.task.schedule.get_last_lr()[0])
        self.task.optimizer.step()
        if not accelerator.optimizer_step_was_skipped:  # fp16: the scaler found an overflow and halves itself
            self.task.schedule.step()
        self.task.optimizer.zero_grad()
        self.task.after_step()
        tracker.advance(self.task.batch_size)
        if measured:
            tracker.step(step, self._over_processes(values), self.task.waited())

    def _clip(self, limit: float | None, loss: Tensor, batch: B) -> Tensor:
        """Scale the gradients down to ``limit`` if their norm exceeds it; the norm before, a scalar.

        The one place of a step where the host waits for the device: all that it must know is read together.

        Raises:
            DataError: the loss or the gradient's norm is not finite on some process; names all that the batch holds.
        """
        self.accelerator.unscale_gradients()
        parameters = [p for p in self.task.model.parameters() if p.grad is not None]
        norm = whole(get_total_norm([p.grad for p in parameters if p.grad is not None]))
        # With a scaler (fp16) an overflow of the gradient is its business: it skips the step.
        checked = [loss] if self.accelerator.scaler is not None else [loss, norm]
        # Inf stands for no limit. After the exchange of gradients the norm is the same on every process.
        asked = [~torch.isfinite(value.detach()) for value in checked] + [
            norm > (math.inf if limit is None else limit)
        ]
        *broken, longer = self.accelerator.reduce(torch.stack(asked).float(), reduction="sum").tolist()
        if any(broken):
            self._refuse("loss" if broken[0] else "gradient's norm", batch)
        if limit is not None and longer:  # else no pass over the gradients to multiply them by 1
            clip_grads_with_norm_(parameters, limit, norm)
        return norm

    def _refuse(self, what: str, batch: B) -> NoReturn:
        """End the run before the optimizer moves anything, on all processes."""
        names_of_all = ", ".join(gather_object(self.task.ids(batch)))
        raise DataError(
            f"step {self.progress.step}: the {what} is not finite; lower optim.lr, or look at the "
            f"{self.task.unit} {names_of_all}"
        )

    def _over_processes(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Each process measures its own rows; the log tells their mean."""
        local = torch.stack([value.to(self.accelerator.device).float() for value in values.values()])
        mean = self.accelerator.reduce(local, reduction="mean").tolist()
        return dict(zip(values, mean, strict=True))

    def _end_epoch(self, tracker: Tracker) -> None:
        """Measure the epoch on dev and keep its model if it is the best, or the last where nothing is measured."""
        progress = self.progress
        last = progress.step >= self.task.total_steps
        score = None
        if self.task.measure is not None:
            if not (last or progress.epoch % self.task.validate_every == 0):
                return
            what = f"{self.task.measure} on {self.task.measured_on}, epoch {progress.epoch}"
            with tracker.measuring(what, lambda: self.task.scored):
                score = self.task.score()
            tracker.epoch(progress.epoch, progress.step, {self.task.measure: score})
        if score is None or score > (-math.inf if progress.best is None else progress.best):
            progress.best = score
            progress.metrics = {"epoch": progress.epoch, "step": progress.step}
            if score is not None:
                progress.metrics[f"dev_{self.task.measure}"] = round(score, 6)
            if score is not None or last:
                model = self.task.whole()
                if self.accelerator.is_main_process:
                    self.task.save(self.output, model)

    def _asked_to_stop(self, stop: StopRequest) -> bool:
        """Whether any process was asked; several agree on it only now and then, since that costs a reduction."""
        asked = stop.signal is not None
        if self.accelerator.num_processes == 1:
            return asked
        if self.progress.step % self.config.log.every:
            return False
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item() > 0)

    def _long_since_saved(self) -> bool:
        """Whether ``save.minutes`` have passed, by the main process's clock."""
        answer = [time.monotonic() - self._saved >= 60 * self.config.save.minutes]
        return bool(broadcast_object_list(answer)[0])

    def _save_state(self) -> None:
        if self.progress.step >= self.task.total_steps:
            return  # what is left to do is to say that it is finished
        data = gather_object([self.task.loader.state() if self.task.loader else None])
        model, parts = self.task.whole(), {name: part.state_dict() for name, part in self._stateful().items()}
        parts["optimizer"] = whole_moments(parts["optimizer"])
        if self.accelerator.is_main_process:
            save_state(self.output, self.key, self.progress, model, parts, data)
        self._saved = time.monotonic()

    def _stateful(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"optimizer": self.task.optimizer, "schedule": self.task.schedule}
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts


def make_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW; gains, biases and the logit scale are not decayed: 0 means nothing for them."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused: one pass over the parameters; on two CPU cores a tenth of the time of torch's default.
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=1e-6, fused=True)


def make_schedule(optimizer: AdamW, config: OptimConfig, total_steps: int) -> LambdaLR:
    """Linear warm-up over ``config.warmup`` of the steps, then a half cosine down to 0."""
    warmup_steps = max(1, round(config.warmup * total_steps))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, factor)
