"""Fits of TransE from several seeds, side by side, as one table of vectors.

The similarity of several seeds is the mean of theirs: unit vectors v₁ … vₙ, laid side by side and divided by √n, have
the product (v₁·v₁′ + … + vₙ·vₙ′)/n. Two seeds of one graph share half of their ten nearest neighbours; the mean is
steadier and agrees better with labels (docs/methods.md#transe).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from kg_targets.errors import ConfigError
from kg_targets.transe.seed_fit import Callbacks, Evaluation, SeedFit
from kg_targets.transe.settings import TransESettings
from kg_targets.transe.triples import Triples

Value = TypeVar("Value")


@dataclass(frozen=True)
class Fitted:
    """Vectors of all nodes and relations."""

    table: NDArray[np.float32]
    """[E + R, seeds · dim]: nodes, norm 1, then relations; each seed's part is divided by √seeds."""
    evaluations: list[Evaluation]
    """For each seed the evaluation whose vectors were kept."""
    device: str
    """Where they were fitted."""


def fit(
    triples: Triples,
    settings: TransESettings,
    seed: int = 0,
    *,
    workers: int | None = None,
    state: Path | None = None,
    callbacks: Callbacks | None = None,
) -> Fitted:
    """Fit every seed, several at a time on a CPU; the result does not depend on how many.

    Args:
        workers: seeds at a time; None: as many as torch would use threads.
        state: folder for what a killed fit continues from; None: none is kept.
        callbacks: functions that are told how far the fits are.

    Raises:
        ConfigError: there is no GPU where one was asked for.
    """
    device = device_of(settings)
    shared = _one_at_a_time(callbacks or Callbacks())

    def one(number: int) -> tuple[NDArray[np.float32], Evaluation]:
        table, evaluation = SeedFit(triples, settings, seed, number, device, state, shared).run()
        return table.cpu().numpy(), evaluation

    at_a_time = 1 if device == "cuda" else workers or torch.get_num_threads()
    with one_thread(), ThreadPoolExecutor(at_a_time) as pool:
        try:
            runs = [pool.submit(one, number) for number in range(settings.seeds)]
            results = [run.result() for run in runs]
        except BaseException:  # Ctrl-C, too: the other fits end at their next step
            shared.stop.set()
            raise
    scale = np.float32(1.0 / np.sqrt(settings.seeds))
    table = np.concatenate([table * scale for table, _ in results], axis=1)
    return Fitted(table, [evaluation for _, evaluation in results], device)


def device_of(settings: TransESettings) -> str:
    """The device that a fit runs on: cpu or cuda."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but there is no usable GPU: take device=auto or device=cpu")
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation of torch: sums in an order that no number of cores changes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_at_a_time(callbacks: Callbacks) -> Callbacks:
    """The same functions, never called by two threads at once, with a way of stopping of their own."""
    lock = Lock()

    def locked(call: Callable[[Value], None]) -> Callable[[Value], None]:
        def under_lock(value: Value) -> None:
            with lock:
                call(value)

        return under_lock

    return replace(
        callbacks,
        say=locked(callbacks.say),
        advance=locked(callbacks.advance),
        evaluated=locked(callbacks.evaluated),
        stop=Event(),
    )
