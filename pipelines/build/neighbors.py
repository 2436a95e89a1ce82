"""Stage three: neighbours, by worker processes, each task of which is finished once and for all."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.scoring import Factors
from kg_targets.scoring.neighbors import EXACT_UP_TO, Neighbors, NeighborSearch
from kg_targets.store.schema import writing
from pipelines.build.executors import Say, bar, map_in_order

APPROXIMATE, EXACT = "approximate", "exact"
WAYS = ("auto", EXACT, APPROXIMATE)
_QUICK = 16
"""Tasks up to which an interrupted build begins anew: a minute of work."""

_NAMES = ("rows", "scores")

_search: NeighborSearch
_tasks: list[NDArray[np.int64]]
_folder: Path


def find_neighbors(
    factors: Factors,
    angles: NDArray[np.float64],
    *,
    k: int,
    way: str,
    folder: Path,
    state: Path,
    workers: int,
    say: Say,
) -> tuple[Neighbors | None, dict[str, Any]]:
    """The nearest ``k`` images of every image, [N, k], mapped from files; and what the manifest says of them.

    Args:
        factors: of N images.
        angles: of ``kg_targets.scoring.neighbors.id_angles``.
        k: 0 for none.
        way: of ``WAYS``; auto is exact up to ``EXACT_UP_TO`` distinct rows, and where factors are dense.
        folder: for the files of a search that is done in a minute; it goes away with the build.
        state: for the files of a longer one, which a killed build resumes from.
        workers: processes.
        say: receives one line.

    Raises:
        StoreError: the disk is full.
    """
    if not k:
        return None, {}
    search = NeighborSearch(factors, k, angles)
    dense = not sparse.issparse(search.distinct)
    exact = way == EXACT or (way == "auto" and (dense or len(search) <= EXACT_UP_TO))
    search.prepare(exact)
    tasks = search.parts()
    place = (folder if len(tasks) <= _QUICK else state) / f"neighbors{_boot()}"
    rows, scores = _files(place, (search.images, k))
    pending = [
        number for number, task in enumerate(tasks) if not _is_done(place, number, search.members(task))
    ]
    if len(pending) < len(tasks):
        say(f"neighbours: {len(tasks) - len(pending):,} of {len(tasks):,} parts are there from before")
    done = map_in_order(_find, pending, workers, _initialise, (search, tasks, place))
    for _ in bar(len(pending), "neighbours", " part", done):
        pass
    if exact:
        return (rows, scores), {}
    recall = round(search.recall(rows), 4)
    return (rows, scores), {"neighbors": {"way": APPROXIMATE, "distinct_rows": len(search), "recall": recall}}


def _initialise(search: NeighborSearch, tasks: list[NDArray[np.int64]], folder: Path) -> None:
    global _search, _tasks, _folder
    _search, _tasks, _folder = search, tasks, folder


def _find(number: int) -> None:
    """Do one task, and mark it as done."""
    images, *found = _search.find(_tasks[number])
    for name, values in zip(_NAMES, found, strict=True):
        mapped = np.load(_folder / f"{name}.npy", mmap_mode="r+", allow_pickle=False)
        mapped[images] = values
    _marker(_folder, number).write_text(_digest(_folder, images), "utf-8")


def _digest(folder: Path, images: NDArray[np.int64]) -> str:
    """Of what the files hold about some images."""
    digest = hashlib.sha256()
    for name in _NAMES:
        digest.update(
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)[np.sort(images)].tobytes()
        )
    return digest.hexdigest()


def _is_done(folder: Path, number: int, images: NDArray[np.int64]) -> bool:
    """Whether a task was marked, and the files still hold what it found."""
    marker = _marker(folder, number)
    return marker.is_file() and marker.read_text("utf-8") == _digest(folder, images)


def _boot() -> str:
    """What tells one start of the machine from another: after a power failure, marked parts may not be on the disk."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return f"-{path.read_text().strip()}" if path.is_file() else ""


def _marker(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.done"


def _files(folder: Path, shape: tuple[int, int]) -> Neighbors:
    """Files for the result, which were there before or are as large as they will be: no task finds the disk full."""
    mapped = []
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, kind in zip(_NAMES, (np.int32, np.float32), strict=True):
            path = folder / f"{name}.npy"
            with suppress(OSError, ValueError):  # it is there from before, and as long as it was
                mapped.append(np.load(path, mmap_mode="r", allow_pickle=False))
                continue
            partial = path.with_suffix(".partial")
            open_memmap(partial, "w+", kind, shape).flush()  # type: ignore[no-untyped-call]
            if hasattr(os, "posix_fallocate"):
                with partial.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
            os.replace(partial, path)
            mapped.append(np.load(path, mmap_mode="r", allow_pickle=False))
    return mapped[0], mapped[1]
