"""Readers: one file per layout in which data sets arrive. Each yields (place, record) or (place, question), or both."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kg_targets.manifest.question import Question
from kg_targets.manifest.readers import (
    iu_xray,
    medpix,
    mimic_cxr,
    path_vqa,
    r2gen,
    roco,
    roco_v2,
    slake,
    tables,
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
    "csv": Layout(captions=tables.read, options=tables.OPTIONS),
    "table": Layout(captions=tables.read, options=tables.OPTIONS),
    "roco": Layout(captions=roco.read),
    "roco_v2": Layout(captions=roco_v2.read, options=roco_v2.OPTIONS),
    "medpix": Layout(captions=medpix.read, options=medpix.OPTIONS),
    "iu_xray": Layout(captions=iu_xray.read, options=iu_xray.OPTIONS),
    "mimic_cxr": Layout(captions=mimic_cxr.read, options=mimic_cxr.OPTIONS),
    "r2gen": Layout(captions=r2gen.read),
    "vqa_rad": Layout(vqa_rad.read_captions, vqa_rad.read_questions, prepare=vqa_rad.prepare),
    "slake": Layout(questions=slake.read),
    "path_vqa": Layout(questions=path_vqa.read),
    "path_vqa_pairs": Layout(questions=path_vqa.read_pairs),
    "vqa_med_2019": Layout(questions=vqa_med_2019.read),
}

__all__ = ["READERS", "Layout", "ReadRequest"]
