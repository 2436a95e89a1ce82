"""Readers: one file per layout in which data sets arrive. Each yields (place, record)."""

from collections.abc import Callable, Iterator

from kg_targets.manifest.readers import csv_files, medpix, roco, roco_v2, vqa_rad
from kg_targets.manifest.readers.request import ReadRequest
from kg_targets.manifest.record import Record

Reader = Callable[[ReadRequest], Iterator[tuple[str, Record]]]

READERS: dict[str, Reader] = {
    "csv": csv_files.read,
    "roco": roco.read,
    "roco_v2": roco_v2.read,
    "medpix": medpix.read,
    "vqa_rad": vqa_rad.read,
}

__all__ = ["READERS", "ReadRequest", "Reader"]
