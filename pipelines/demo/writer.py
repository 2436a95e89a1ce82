"""Writes the demo data set: pictures, one CSV per split, a README and a marker, in one atomic rename."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from kg_targets.errors import DataError
from pipelines.build.executors import map_in_order
from pipelines.demo.captions import compose_caption
from pipelines.demo.cases import Case, Series, plan_cases, split_cases
from pipelines.demo.picture import draw_picture

VERSION = "1"
"""Version of the generator; raised whenever the same seed gives other bytes."""

SPLITS = ("train", "dev", "test")
COLUMNS = (
    "image_id", "filepath", "caption", "cuis", "group_id", "licence",
    "label_modality", "label_region", "label_finding", "label_laterality",
)  # fmt: skip

_MIN_IMAGES = 20
_CASES_PER_JOB = 16


@dataclass(frozen=True)
class DemoSummary:
    """Size and make of a demo data set; also the content of its ``demo.json``."""

    seed: int
    version: str
    images: int
    cases: int
    splits: dict[str, int]
    """Images per split."""
    created: bool = True
    """False if a complete data set was already there."""


Progress = Callable[[int, int], Any]
Job = tuple[int, list[tuple[int, Case, tuple[Series, ...]]], Path]


def write_demo(
    root: Path, *, images: int = 2000, seed: int = 0, workers: int = 1, progress: Progress | None = None
) -> DemoSummary:
    """Write the demo data set to ``root``, or return at once if the same one is already there.

    The bytes depend on ``images``, ``seed`` and `VERSION` only, not on ``workers``. Everything is written
    to a sibling folder of a name of its own and renamed at the end: an interruption leaves ``root`` as it was,
    and of several runs at once the first to finish is the one that is kept.

    Args:
        root: folder of the data set; a demo data set of another seed or size in it is replaced.
        images: number of images, at least 20.
        seed: any non-negative integer.
        workers: number of processes.
        progress: called with (images done, images in all) after every few cases.
    Raises:
        DataError: ``images`` or ``seed`` is out of range, ``root`` holds something else than demo data, or it cannot
            be written.
    """
    if images < _MIN_IMAGES or seed < 0:
        raise DataError(
            f"demo data: images={images}, seed={seed}: ask for {_MIN_IMAGES} images or more, seed 0 or more"
        )
    cases = plan_cases(seed, images)
    splits = split_cases(cases, seed)
    counts = {
        name: sum(len(c[1]) for c, s in zip(cases, splits, strict=True) if s == name) for name in SPLITS
    }
    summary = DemoSummary(seed, VERSION, images, len(cases), counts)
    target = Path(os.path.realpath(root))  # has a name and a parent, also where ``root`` is "." or a link
    try:
        if _is_complete(target, summary):
            return replace(summary, created=False)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            fresh = partial / "new"  # below the temporary folder, which nobody else may read
            (fresh / "images").mkdir(parents=True)
            rows = _draw_all(_jobs(seed, cases, fresh), images, workers, progress)
            _write_tables(fresh, rows, splits)
            (fresh / "README.txt").write_text(_readme(summary), encoding="utf-8")
            (fresh / "demo.json").write_bytes(_marker(summary))
            return replace(summary, created=_swap_in(fresh, target, partial / "old", summary))
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{root}: demo data cannot be written there ({error.strerror or error}): choose another folder"
        ) from error


def _is_complete(root: Path, summary: DemoSummary) -> bool:
    """Whether ``root`` holds exactly this data set; a folder that is no demo data set at all is refused."""
    try:
        names = os.listdir(root)
        if "demo.json" in names:
            return (root / "demo.json").read_bytes() == _marker(summary)
    except FileNotFoundError:  # not there yet, or another run is just replacing it
        return False
    except NotADirectoryError:
        names = [root.name]
    if names and os.path.lexists(root):
        raise DataError(f"{root} exists and is not a demo data set: choose another folder, or move it away")
    return False


def _jobs(seed: int, cases: list[tuple[Case, tuple[Series, ...]]], folder: Path) -> Iterator[Job]:
    """Divide the cases into jobs; each case carries the number of its first image."""
    firsts = accumulate((len(series) for _, series in cases), initial=0)
    numbered = [(first, *case) for first, case in zip(firsts, cases, strict=False)]
    for start in range(0, len(numbered), _CASES_PER_JOB):
        yield seed, numbered[start : start + _CASES_PER_JOB], folder


def _draw_all(jobs: Iterator[Job], images: int, workers: int, progress: Progress | None) -> list[list[str]]:
    rows: list[list[str]] = []
    # Closing waits for the workers, so that no late picture lands in a removed folder.
    with closing(map_in_order(_run_job, jobs, max(workers, 1))) as results:
        for part in results:
            rows.extend(part)
            if progress is not None:
                progress(len(rows), images)
    return rows


def _run_job(job: Job) -> list[list[str]]:
    """Draw and save the pictures of some cases; return their table rows."""
    seed, cases, folder = job
    rows = []
    for first, case, series in cases:
        rng = np.random.default_rng(np.random.SeedSequence([seed, case.index, 1]))
        for number, one in enumerate(series, start=first):
            pixels, arrow = draw_picture(case, one, rng, arrow=bool(rng.random() < 0.25))
            caption = compose_caption(case, one, rng, arrow=arrow).text
            image_id = f"demo_{number:06d}"
            Image.fromarray(pixels).save(folder / "images" / f"{image_id}.png", compress_level=6)
            labels = [one.modality, case.region, case.finding, case.laterality]
            about = [image_id, f"images/{image_id}.png", caption, "", f"case_{case.index:05d}", "CC0-1.0"]
            rows.append([*about, *labels])
    return rows


def _write_tables(folder: Path, rows: Sequence[list[str]], splits: Sequence[str]) -> None:
    table = pd.DataFrame(sorted(rows), columns=list(COLUMNS))
    of_row = table["group_id"].str.removeprefix("case_").astype(int).map(dict(enumerate(splits)))
    for name in SPLITS:
        table[of_row == name].to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def _marker(summary: DemoSummary) -> bytes:
    content = asdict(summary)
    del content["created"]
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _readme(summary: DemoSummary) -> str:
    splits = ", ".join(f"{name} {count}" for name, count in summary.splits.items())
    return (
        "Demo data: drawings that look like radiology, with captions. No patient, no photograph.\n"
        f"{summary.images} images of {summary.cases} invented cases, split by case: {splits}.\n"
        f"Generator version {summary.version}, seed {summary.seed}; the same seed gives the same bytes.\n"
        "Drawn and written by a program; given to the public domain (CC0-1.0). Not for medical use.\n"
    )


def _swap_in(fresh: Path, root: Path, old: Path, summary: DemoSummary) -> bool:
    """Put the finished folder in place of ``root``, an older demo data set there in ``old``.

    Returns:
        False if another run has meanwhile put the same data set there; that one stays.
    """
    while not _renamed(fresh, root):
        if _is_complete(root, summary):
            return False
        try:
            shutil.rmtree(old, ignore_errors=True)
            root.rename(old)
            if _renamed(fresh, root):
                break
        except FileNotFoundError:
            continue  # another run has moved it away
        finally:
            if old.exists() and not root.exists():
                old.rename(root)  # interrupted in between: as it was
    return True


def _renamed(source: Path, target: Path) -> bool:
    """Rename a folder; False if a folder with content is in the way."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True
