"""Maps of the places in an image that the words of a question attend to, and a picture of all of them.

| kind           | map of a word                                                                                   |
|----------------|-------------------------------------------------------------------------------------------------|
| `transport`    | row of the optimal-transport plan between words and places after co-attention, as L_OT takes it |
| `co_attention` | attention of text to image in the last co-attention layer, mean over heads, without CLS         |

Maps of a plan sum to a word's share of the question, pieces / n; those of attention to 1.
"""

import textwrap
from dataclasses import dataclass
from itertools import groupby
from math import ceil, isqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from training.errors import ConfigError
from training.folders import whole_file
from training.med_vqa.model.modeling import MedVQAModel
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.model.tokens import Tokens
from training.med_vqa.model.transport import cosine_cost, inner_tokens, ipot_plan

KINDS = ("transport", "co_attention")
_COLUMNS, _INCH, _LEGEND = 6, 1.75, 0.9
_COVER = 0.6
"""Opacity of a place that gets half as much again as by an even spread, or more."""


@dataclass(frozen=True)
class WordMaps:
    """One question and one image."""

    words: list[str]
    """As the question has them, W of them; punctuation marks are words."""
    maps: NDArray[np.float32]
    """``[W, rows, columns]`` of places, row by row from the image's upper left corner."""


@torch.inference_mode()
def word_maps(med_vqa: MedVQA, pixels: Tensor, question: str, tokens: Tokens, kind: str) -> WordMaps:
    """The map of each word that the model reads.

    Args:
        med_vqa: a model in eval mode.
        pixels: the preprocessed image, float ``[3, S, S]``.
        question: its text, and
        tokens: what of it the model reads, one row with [CLS] and [SEP].
        kind: of ``KINDS``.

    Raises:
        ConfigError: the question has no word, or the image tower's places form no square.
    """
    model = med_vqa.model
    read: Any = med_vqa.tokenizer(question, add_special_tokens=False, verbose=False)
    words = read.word_ids(0)[: int(tokens.lengths[0]) - 2]  # of each piece
    if not words:
        raise ConfigError("--attention: the question has no word that could be drawn: ask something")
    ids, mask = (part.to(model.device) for part in tokens.batch(torch.tensor([0])))
    image = model.image_tokens(pixels[None].to(model.device))
    places = image.shape[1] - 1  # the first one stands for the whole image
    side = isqrt(places)
    if side * side != places:
        raise ConfigError(f"--attention: the image tower has {places} places, which form no square grid")
    found = _transport if kind == "transport" else _co_attention
    maps = found(model, image, ids, mask)[inner_tokens(mask)[0]].float().cpu()  # (pieces, places)
    grouped = [list(group) for _, group in groupby(range(len(words)), key=words.__getitem__)]
    merged = torch.stack([maps[group].sum(dim=0) for group in grouped])
    if kind == "co_attention":
        merged /= merged.sum(dim=1, keepdim=True)
    spans = [read.word_to_chars(0, words[group[0]]) for group in grouped]
    return WordMaps([question[span.start : span.end] for span in spans], merged.view(-1, side, side).numpy())


def _transport(model: MedVQAModel, image_tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Rows of the plan, ``[L, places]``."""
    encoded = model.encode(image_tokens, ids, mask)
    text, image = encoded.states[:, : ids.shape[1]], encoded.states[:, ids.shape[1] + 1 :]
    real, everywhere = inner_tokens(mask), encoded.mask.new_ones(image.shape[:2])
    return ipot_plan(cosine_cost(text, image, real, everywhere), real, everywhere)[0]


def _co_attention(model: MedVQAModel, image_tokens: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """softmax(q kᵀ / √w) of the last layer's text ← image attention at the places, mean over heads, ``[L, places]``."""
    attention: Any = model.co_attention.text[-1].cross_attention
    seen: list[tuple[Any, ...]] = []
    hook = attention.register_forward_pre_hook(lambda _, given: seen.append(given))
    try:
        model.encode(image_tokens, ids, mask)
    finally:
        hook.remove()
    (states, (keys, _), *_), *_ = seen
    query = attention.query(states).unflatten(2, (attention.heads, -1)).transpose(1, 2)  # (1, heads, L, w)
    weights: Tensor = (query @ keys.mT / query.shape[-1] ** 0.5).softmax(dim=-1)
    return weights.mean(dim=1)[0, :, 1:]


def draw(path: Path, found: WordMaps, pixels: Tensor, med_vqa: MedVQA, title: str, kind: str) -> None:
    """A PNG with the image as the model sees it, and again under the map of each word; written by atomic rename.

    All words share one scale, in multiples of an even spread over the places: what gets no more than that stays clear.

    Args:
        path: file to write; its folder is made if missing.
        found: maps of the words.
        pixels: the preprocessed image, float ``[3, S, S]``.
        med_vqa: whose preprocessing it is.
        title: above, one or more lines.
        kind: of ``KINDS``, named beside the scale.

    Raises:
        CheckpointError: the file cannot be written.
    """
    image = (pixels.cpu() * med_vqa.std + med_vqa.mean).clamp(0, 1).permute(1, 2, 0).numpy()
    even = found.maps / found.maps.mean(axis=(1, 2), keepdims=True)
    colours = LogNorm(1.0, max(float(even.max()), 2.0))
    columns = min(_COLUMNS, 1 + len(found.words))
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, int(columns * _INCH * 11))]
    head = 0.17 * len(lines) + 0.3
    rows = ceil((1 + len(found.words)) / columns)
    size = (columns * _INCH + _LEGEND, rows * (_INCH + 0.25) + head)
    figure = Figure(figsize=size, facecolor="white")
    figure.text(0.01, 1 - 0.08 / size[1], "\n".join(lines), va="top", fontsize=9, parse_math=False)
    grid = figure.add_gridspec(
        rows, columns, left=0.01, right=1 - _LEGEND / size[0], bottom=0.06 / size[1],
        top=1 - head / size[1], wspace=0.06, hspace=0.18,
    )  # fmt: skip
    shown: Any = None
    for place in range(1 + len(found.words)):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        axes.set_axis_off()
        axes.imshow(image, extent=(0, 1, 0, 1))
        if place:
            values = even[place - 1]
            cover = _COVER * np.clip(2 * (values - 1), 0, 1)
            shown = axes.imshow(
                np.maximum(values, 1), extent=(0, 1, 0, 1), cmap="plasma", norm=colours, alpha=cover
            )
        word = found.words[place - 1] if place else "image"
        axes.set_title(
            textwrap.shorten(word, 22, placeholder="…") or word[:22], fontsize=8, pad=3, parse_math=False
        )
    bar = figure.add_axes((1 - (_LEGEND - 0.15) / size[0], 0.08, 0.12 / size[0], 0.84 - head / size[1]))
    scale: Any = figure.colorbar(shown, cax=bar)
    scale.solids.set_alpha(_COVER)
    scale.minorticks_off()
    ticks = [2**power for power in range(10) if 2**power <= colours.vmax]
    scale.set_ticks(ticks, labels=[f"{tick}×" for tick in ticks], fontsize=7)
    scale.set_label(f"{kind.replace('_', '-')}, of an even spread", fontsize=7)
    with whole_file(path, "--attention") as partial:
        figure.savefig(partial, format="png", dpi=110)
