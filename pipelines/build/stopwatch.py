"""Seconds and peak memory per stage, and a progress bar that only a terminal sees."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


class Stopwatch:
    """Collects wall seconds and the peak resident memory seen by the end of each named stage."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block; a stage entered twice adds up."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start + self.stages.get(name, {}).get("seconds", 0.0)
        self.stages[name] = {"seconds": round(seconds, 3), "peak_mib": round(peak_memory_mib())}


def peak_memory_mib() -> float:
    """Peak resident memory of this process and of its largest finished child, MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in KiB on Linux
    own, children = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return max(own, children) / unit


def progress(items: Iterable[Item], total: int | None, description: str, unit: str) -> Iterator[Item]:
    """Pass items on under a progress bar with an estimate; silent where standard error is not a terminal."""
    yield from tqdm(
        items, total=total, desc=description, unit=unit, disable=not sys.stderr.isatty(), leave=False
    )


def bar(total: int, description: str, unit: str) -> "tqdm[NoReturn]":
    """The same, moved by its ``update``; a context manager."""
    return tqdm(total=total, desc=description, unit=unit, disable=not sys.stderr.isatty(), leave=False)
