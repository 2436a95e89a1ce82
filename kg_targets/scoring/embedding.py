"""Belief: two images are alike as far as their captions mean alike, by a sentence encoder or a teacher's text tower.

    e_i = the caption's embedding, length 1        c = mean of e_i over the fit split        K_i = norm(e_i − c)

Centring takes away what all captions of a data set have in common: without it, every S_ij is far above 0. The centre is
kept with the fit split's store and reused for the others. A caption without any text leaves its image unknown; one
that names no concept does not. S_ij = K_i·K_j is in [−1, 1] and not additive over concepts.
Source: docs/methods.md#embedding (our proposal).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kg_targets.errors import ConfigError
from kg_targets.scoring.factors import Factors, ScoringInput

CENTRE = "centre"
_AT_ONCE = 4096  # texts between two points from which an interrupted build goes on


@dataclass(frozen=True)
class EmbeddingSettings:
    """Options of the embedding scorer."""

    encoder: str = "minilm-l6-v2"
    """Encoder of captions: minilm-l6-v2, sentence:FOLDER, or any teacher (biomedclip, hf:FOLDER, run:FOLDER, …)."""


def score(data: ScoringInput) -> Factors:
    """Dense factors, float32 [N, D]; an image whose caption is empty, or the centre itself, is unknown."""
    embeddings, present = _embeddings(data)
    if data.fitted is None:
        if not present.any():
            raise ConfigError(
                "--scorer embedding: no image of the fit split has a caption: choose another --fit-split"
            )
        centre = embeddings[present].mean(axis=0, dtype=np.float64).astype(np.float32)
    else:
        centre = data.fitted[CENTRE]
    matrix = np.zeros_like(embeddings)
    known = present.copy()
    for start in range(0, len(matrix), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        centred = embeddings[rows].astype(np.float64) - centre
        norms = np.linalg.norm(centred, axis=1)
        known[rows] &= norms > 1e-6
        matrix[rows] = centred / np.where(known[rows], norms, np.inf)[:, None]
    return Factors(matrix, known, {CENTRE: centre})


def _embeddings(data: ScoringInput) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Embedding of each image's caption, float32 [N, D], and whether it has one; distinct texts are encoded once."""
    captions = data.captions()
    place: dict[str, int] = {}
    first: list[str] = []
    of_row = np.full(len(captions), -1)
    for row, caption in enumerate(captions):
        if caption.strip():
            if caption not in place:
                place[caption] = len(first)
                first.append(data.image_ids[row])
            of_row[row] = place[caption]
    present = of_row >= 0
    texts = list(place)
    parts = []
    with data.progress(len(texts), "captions → embeddings", "caption") as shown:
        for start in range(0, max(len(texts), 1), _AT_ONCE):
            chosen = slice(start, start + _AT_ONCE)
            kept = None if data.state is None else data.state / f"{start:010d}.npy"
            if kept is not None and kept.is_file():
                parts.append(np.load(kept, allow_pickle=False))
                shown.update(len(parts[-1]))
            else:
                parts.append(data.encode(texts[chosen], first[chosen], shown.update))
                if kept is not None:
                    _keep(parts[-1], kept)
    distinct = np.concatenate(parts)
    found = np.zeros((len(captions), distinct.shape[1]), dtype=np.float32)
    found[present] = distinct[of_row[present]]
    return found, present


def _keep(vectors: NDArray[np.float32], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, vectors)
    os.replace(partial, path)
