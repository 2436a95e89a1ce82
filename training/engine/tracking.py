"""What a person sees of a run: a bar on a terminal, lines with the time left elsewhere, a JSONL log."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType

from accelerate import Accelerator
from tqdm import tqdm

from training.folders import writing


class Tracker:
    """Writes OUTPUT/log.jsonl, trackers and the progress display; silent off the main process."""

    def __init__(self, accelerator: Accelerator, output: Path, total_steps: int, every: int) -> None:
        self._accelerator = accelerator
        self._total, self._every = total_steps, every
        self._main = accelerator.is_main_process
        self._interactive = sys.stderr.isatty()
        self._started = self._last_time = time.monotonic()
        self._images = 0
        self._output = output
        with writing(output, "--output"):
            self._log = (output / "log.jsonl").open("a", encoding="utf-8") if self._main else None
        self._bar = tqdm(
            total=total_steps, unit="step", disable=not (self._main and self._interactive), leave=False
        )

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._log is not None:
            self._log.close()

    def due(self, step: int) -> bool:
        """Whether this step (counted from 1) is logged; measurements are read from the device only then."""
        return step % self._every == 0 or step in (1, self._total)

    def advance(self, images: int) -> None:
        """Count one step of ``images`` images over all processes."""
        self._images += images
        self._bar.update(1)

    def step(self, step: int, values: dict[str, float]) -> None:
        """Log a step's measurements with the throughput since the last logged one."""
        now = time.monotonic()
        values = {**values, "images_per_s": self._images / max(now - self._last_time, 1e-9)}
        self._last_time, self._images = now, 0
        self._record(
            {"step": step, **values}, {f"train/{name}": value for name, value in values.items()}, step
        )
        left = (now - self._started) / step * (self._total - step)
        summary = (
            f"step {step}/{self._total}  loss {values['loss']:.3f}  KL {values['kl']:.3f}  "
            f"diagonal {values['diagonal']:.2f}  positives {values['positives']:.1f}  "
            f"{values['images_per_s']:.0f} images/s"
        )
        self._bar.set_postfix_str(f"loss {values['loss']:.3f} KL {values['kl']:.3f}", refresh=False)
        if not self._interactive:
            self.say(f"{summary}  {left:.0f} s left")

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
        self._accelerator.log(tracked, step=step)
