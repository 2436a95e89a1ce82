"""Synthetic captions of any number: sentences of our own around an ontology's names, streamed to a CSV file.

How often a name is used falls with its rank as in real captions (Zipf), so that some concepts are in every third
caption and most in a few, and about half of the captions have concepts that no other has. Block b of the file follows
from the seed and b alone: a longer file begins like a shorter one.
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kg_targets.ontology import Ontology

BLOCK = 8192
SENTENCES = (
    "{modality} of the {organ} shows {finding}.",
    "{modality} in a patient with {finding}; the {organ} is involved.",
    "{finding} of the {organ}, seen on {modality}.",
    "{modality}: {finding} and {finding} near the {organ}, no {finding}.",
    "Follow-up {modality} after treatment of {finding} of the {organ}.",
    "{modality} of the {organ}.",
)
_USE = np.array([0.25, 0.15, 0.2, 0.1, 0.1, 0.2])
_SLOTS = ("modality", "organ", "finding")
_EXPONENT = 1.1


def write_captions(path: Path, rows: int, ontology: Ontology, seed: int = 0) -> None:
    """Write ``rows`` captions with image ids, paths and cases (three images each) to a CSV file.

    Args:
        path: the file.
        rows: at least 1.
        ontology: whose preferred names of modalities, organs and findings are used.
        seed: another one gives other captions.
    """
    names: dict[str, list[str]] = {slot: [] for slot in _SLOTS}
    for concept in map(ontology.__getitem__, ontology.cuis):
        if concept.kind in names:
            names[concept.kind].append(concept.name)
    chances = {slot: _zipf(len(names[slot])) for slot in _SLOTS}
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image_id", "filepath", "caption", "group_id"])
        for start in range(0, rows, BLOCK):
            generator = np.random.Generator(np.random.Philox(key=[seed, start // BLOCK]))
            words = {
                slot: iter(generator.choice(len(names[slot]), 3 * BLOCK, p=chances[slot]).tolist())
                for slot in _SLOTS
            }
            sentences = generator.choice(len(SENTENCES), BLOCK, p=_USE).tolist()
            for row, number in enumerate(sentences[: rows - start], start):
                caption = SENTENCES[number]
                for slot in _SLOTS:
                    while f"{{{slot}}}" in caption:
                        caption = caption.replace(f"{{{slot}}}", names[slot][next(words[slot])], 1)
                writer.writerow([f"image{row:09d}", f"images/{row:09d}.jpg", caption, f"case{row // 3:09d}"])


def _zipf(count: int) -> NDArray[np.float64]:
    weights = 1.0 / np.arange(1, count + 1) ** _EXPONENT
    return weights / weights.sum()
