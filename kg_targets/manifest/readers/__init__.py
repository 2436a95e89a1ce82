"""Readers: one file per layout in which data sets arrive. Each yields (place, record) or (place, question), or both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kg_targets.manifest.question import Question
from kg_targets.manifest.readers import (
    csv_files,
    medpix,
    path_vqa,
    roco,
    roco_v2,
    slake,
    vqa_med_2019,
    vqa_rad,
)
from kg_targets.manifest.record import ReadRequest, Record


@dataclass(frozen=True)
class Layout:
    """Readers of one layout; each streams one split in the order of its files."""

    captions: Callable[[ReadRequest], Iterator[tuple[str, Record]]] | None = None
    questions: Callable[[ReadRequest], Iterator[tuple[str, Question]]] | None = None
    options: frozenset[str] = frozenset()
    """Keys that a manifest's ``options`` may have."""
    prepare: Callable[[ReadRequest], bytes] | None = None
    """Content of a split's file in its usual form, from the form in which the data set is published."""


READERS: dict[str, Layout] = {
    "csv": Layout(captions=csv_files.read, options=csv_files.OPTIONS),
    "roco": Layout(captions=roco.read),
    "roco_v2": Layout(captions=roco_v2.read),
    "medpix": Layout(captions=medpix.read, options=medpix.OPTIONS),
    "vqa_rad": Layout(vqa_rad.read_captions, vqa_rad.read_questions, prepare=vqa_rad.prepare),
    "slake": Layout(questions=slake.read),
    "path_vqa": Layout(questions=path_vqa.read),
    "path_vqa_pairs": Layout(questions=path_vqa.read_pairs),
    "vqa_med_2019": Layout(questions=vqa_med_2019.read),
}

__all__ = ["READERS", "Layout", "ReadRequest"]
