"""Executors of work, and its time and progress.

An executor knows nothing of the work: it maps a function over items and keeps their order.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from kg_targets.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")
Say = Callable[[str], None]
"""Receives one line at a time for the person watching."""


def available_cores() -> int:
    """Cores that this process may use; all of the machine's where the system (macOS, Windows) cannot tell."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _nothing() -> None:
    """Prepare nothing: the work needs nothing, or a forked worker has everything already."""


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    initializer: Callable[..., None] = _nothing,
    initargs: tuple[Any, ...] = (),
) -> Generator[Result, None, None]:
    """Results in the order of ``items``, at most ``2·workers`` items in flight, so that memory stays bounded.

    With one worker everything happens in this process. Ctrl-C reaches this process only; workers end with the pool,
    and with this process if it is killed.
    Where processes can be forked, the initializer runs once, here, and workers inherit what it prepared.

    Raises:
        ConfigError: a worker was killed.
    """
    can_fork = sys.platform == "linux"  # elsewhere forking a process with threads is unsafe or impossible
    if workers == 1 or can_fork:
        initializer(*initargs)
    if workers == 1:
        yield from map(function, items)
        return
    prepare = (_nothing,) if can_fork else (initializer, *initargs)
    context = multiprocessing.get_context("fork" if can_fork else None)
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=prepare)
    try:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise ConfigError(
            "a worker process was killed, most likely because memory ran out: take fewer --workers and "
            "run the command again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(initializer: Callable[..., None], *initargs: Any) -> None:
    """Leave Ctrl-C to the parent, end on SIGTERM, and end when the parent has ended in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    initializer(*initargs)


def _end_with(parent: Any) -> None:
    """Wait for the end of the parent, which the system tells by a pipe (on macOS, too), and end this process."""
    if parent is not None:
        parent.join()
        os._exit(1)


class Stopwatch:
    """Collects seconds of each named stage, by the clock and of the cores (this process's and its workers'), and the
    peak resident memory seen by its end."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; a stage entered twice adds up."""
        start, before = _seconds(), self.stages.get(name, {})
        yield
        taken = {key: round(now - start[key] + before.get(key, 0.0), 3) for key, now in _seconds().items()}
        self.stages[name] = {**taken, "peak_mib": round(peak_memory_mib())}

    def total(self, images: int, rate_of: str = "") -> str:
        """Images, seconds and peak memory of all stages, and the images per second of the stage ``rate_of``."""
        seconds = sum(stage["seconds"] for stage in self.stages.values())
        peak = max(stage["peak_mib"] for stage in self.stages.values())
        rate = f" ({images / max(self.stages[rate_of]['seconds'], 1e-3):,.0f} images/s)" if rate_of else ""
        return f"{images:,} images in {seconds:.1f} s{rate}, peak memory {peak:,.0f} MiB"

    def each(self) -> str:
        """Seconds and peak memory so far of every stage."""
        each = [(name, stage["seconds"], stage["peak_mib"]) for name, stage in self.stages.items()]
        return ", ".join(f"{name} {seconds:.1f} s {peak:,.0f} MiB" for name, seconds, peak in each)


def _seconds() -> dict[str, float]:
    """Seconds by the clock, of this process's cores, and of those of its finished children."""
    own, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "seconds": time.perf_counter(),
        "cpu_seconds": own.ru_utime + own.ru_stime,
        "workers_cpu_seconds": theirs.ru_utime + theirs.ru_stime,
    }


def peak_memory_mib() -> float:
    """Peak resident memory of this process and of its largest finished child, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in KiB on Linux
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in both) / unit


def bar(total: int | None, description: str, unit: str, items: Iterable[Any] | None = None) -> "tqdm[Any]":
    """Progress bar with an estimate, only where standard error is a terminal: iterated over, or moved by ``update``."""
    hidden = not sys.stderr.isatty()
    return tqdm(items, total=total, desc=description, unit=unit, disable=hidden, leave=False)
