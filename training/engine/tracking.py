"""Display and log of a run: a bar on a terminal, lines with the time left elsewhere, a JSONL log."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from tqdm import tqdm

from training.arguments import flat
from training.checks import one_of
from training.engine.checkpoint import LOG
from training.engine.config import RunConfig
from training.errors import ConfigError
from training.folders import writing

_SHOWN = (
    ("loss", "loss", ".3f"),
    ("kl", "KL", ".3f"),
    ("diagonal", "diagonal", ".2f"),
    ("positives", "positives", ".1f"),
    ("transport", "transport", ".3f"),
    ("matching_accuracy", "matching", ".2f"),
    ("no_negative", "without negative", ".2f"),
    ("token_accuracy", "tokens right", ".2f"),
)
"""Measurements that a line for people shows: name, text, format."""


_PATIENCE = 10.0
"""Seconds of a measurement after which a line says how far it is, and again after as many."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate does not know or whose package is absent, before anything is loaded.

    Raises:
        ConfigError: ``log.trackers`` names one.
    """
    known = [str(kind) for kind in LoggerType.list() if str(kind) != "all"]
    available = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in names:
        one_of("log.trackers", name, (*known, "none"))
        if name not in available:
            raise ConfigError(f"log.trackers: {name} is not installed: pip install {name}, or leave it out")


def start_trackers(accelerator: Accelerator, config: RunConfig, done: int) -> None:
    """Open the trackers of ``log.trackers``; a continued run goes on where it was saved.

    Args:
        accelerator: made with these trackers.
        config: the run's.
        done: optimizer steps done before.

    Raises:
        CheckpointError: OUTPUT cannot be written.
    """
    names = config.log.tracker_names
    if not names:
        return
    options = {"tensorboard": {"purge_step": done + 1}} if done else {}
    # For TensorBoard the project is a folder's name, and its config would be a folder more.
    alone = names == ["tensorboard"]
    with writing(Path(config.output), "--output"):
        accelerator.init_trackers(
            "tensorboard" if alone else "kg-targets", None if alone else flat(asdict(config)), options
        )


class Tracker:
    """Writes OUTPUT/log.jsonl, trackers and the progress display; silent off the main process.

    Args:
        accelerator: the run's.
        output: its folder.
        total_steps: optimizer steps of the whole run.
        every: steps between log lines.
        done: steps done before.
        unit: what throughput counts, in the plural.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output: Path,
        total_steps: int,
        every: int,
        done: int = 0,
        unit: str = "images",
    ) -> None:
        self._accelerator = accelerator
        self._total, self._every, self._done, self._unit = total_steps, every, done, unit
        self._main = accelerator.is_main_process
        self._interactive = sys.stderr.isatty()
        self._started = self._last_time = time.monotonic()
        self._count, self._waited = 0, 0.0
        self._output = output
        with writing(output, "--output"):
            self._log = (output / LOG).open("a", encoding="utf-8") if self._main else None
        self._bar = tqdm(
            total=total_steps,
            initial=done,
            unit="step",
            disable=not (self._main and self._interactive),
            leave=False,
        )

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.close()
        if self._log is None:
            return
        if error is not None:
            with suppress(
                OSError
            ):  # closing writes what is left: on a full disk, what failed is on its way already
                self._log.close()
            return
        with writing(self._output, "--output"):
            self._log.close()

    def due(self, step: int) -> bool:
        """Whether this step (counted from 1) is logged; measurements are read from the device only then."""
        return step % self._every == 0 or step in (1, self._total)

    def advance(self, count: int) -> None:
        """Count one step of ``count`` examples over all processes."""
        self._count += count
        self._bar.update(1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not the steps' own, such as a measurement on dev: no part of the throughput."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._last_time += time.monotonic() - began

    @contextmanager
    def measuring(self, what: str, so_far: Callable[[], str]) -> Iterator[None]:
        """Say now and then how far a measurement is that takes longer than a few seconds.

        Args:
            what: is measured.
            so_far: how much of it is done, in words; empty where that is not known.
        """
        ended, began = threading.Event(), time.monotonic()

        def tell() -> None:
            while not ended.wait(_PATIENCE):
                passed = f"{time.monotonic() - began:.0f} s"
                self.say("  ".join(part for part in (f"measuring {what}", so_far(), passed) if part))

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()

    def step(self, step: int, values: dict[str, float], waited: float) -> None:
        """Log a step's measurements, and since the last logged one the throughput and the share of time without data.

        Args:
            step: counted from 1.
            values: measurements by name.
            waited: seconds that steps have waited for data so far.
        """
        now = time.monotonic()
        passed = max(now - self._last_time, 1e-9)
        values = {
            **values,
            f"{self._unit}_per_s": self._count / passed,
            "data_wait": (waited - self._waited) / passed,
        }
        self._last_time, self._count, self._waited = now, 0, waited
        self._record(
            {"step": step, **values}, {f"train/{name}": value for name, value in values.items()}, step
        )
        left = (now - self._started) / (step - self._done) * (self._total - step)
        shown = "  ".join(f"{text} {values[name]:{form}}" for name, text, form in _SHOWN if name in values)
        self._bar.set_postfix_str(shown, refresh=False)
        if not self._interactive:
            rate = f"{values[f'{self._unit}_per_s']:.0f} {self._unit}/s"
            self.say(f"step {step}/{self._total}  {shown}  {rate}  {left:.0f} s left")

    def epoch(self, epoch: int, step: int, values: dict[str, float]) -> None:
        """Log an epoch's development measures."""
        self._record(
            {"epoch": epoch, "step": step, **values}, {f"dev/{name}": v for name, v in values.items()}, step
        )
        self.say(f"epoch {epoch}  dev " + "  ".join(f"{name} {value:.3f}" for name, value in values.items()))

    def say(self, message: str) -> None:
        """One line for the person at the terminal, from the main process only."""
        if self._main:
            tqdm.write(message, file=sys.stderr)

    def _record(self, line: dict[str, float], tracked: dict[str, float], step: int) -> None:
        if self._log is not None:
            with writing(self._output, "--output"):
                self._log.write(json.dumps({name: round(value, 6) for name, value in line.items()}) + "\n")
                self._log.flush()
        with writing(self._output, "--output"):
            self._accelerator.log(tracked, step=step)
