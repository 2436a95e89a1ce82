"""Readers: one file per layout in which Med-VQA data sets arrive. Each yields (place, question)."""

from collections.abc import Callable, Iterator

from training.vqa.items import Question
from training.vqa.readers import path_vqa, path_vqa_pairs, slake, vqa_med_2019, vqa_rad
from training.vqa.readers.request import ReadRequest

Reader = Callable[[ReadRequest], Iterator[tuple[str, Question]]]

READERS: dict[str, Reader] = {
    "path_vqa": path_vqa.read,
    "path_vqa_pairs": path_vqa_pairs.read,
    "slake": slake.read,
    "vqa_med_2019": vqa_med_2019.read,
    "vqa_rad": vqa_rad.read,
}

__all__ = ["READERS", "ReadRequest", "Reader"]
