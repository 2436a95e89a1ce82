"""Captions that are longer than a text tower reads, and what it reads of them instead.

Targets come from the whole caption, and a tower that takes 77 tokens never sees the rest. ``data.long_captions`` says
what is read of a caption that is too long; all others are read as they are:

truncate        its first tokens (open_clip's own way)
best_sentence   the sentence with most concepts, the first one of several
sentences       as many sentences as fit, those with most concepts first, in the caption's order

A sentence has the concepts that the store's mentions assert within it. Where mentions have no places (CUIs that a data
set ships; a teacher's store), all sentences are alike, and the first ones are read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.store import TargetStore
from kg_targets.store.schema import KNOWLEDGE
from training.data.config import LONG_CAPTIONS

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")
LONGEST = 1024
"""Tokens that are counted of a caption."""
_AT_ONCE = 256
"""Captions that are tokenised at full length together."""

Lengths = Callable[[Sequence[str]], NDArray[np.int64]]
"""Number of tokens of each text, special ones included, int64 ``[N]``."""
Span = tuple[int, int]
"""Start and end in a caption, in code points."""


@dataclass(frozen=True)
class FittedCaptions:
    """Captions as a text tower gets them."""

    texts: list[str]
    context: int
    """Tokens that the tower reads, special ones included."""
    mode: str = LONG_CAPTIONS[0]
    """One of ``LONG_CAPTIONS``."""
    longer: int = 0
    """Captions that are longer."""
    truncated: int = 0
    """Those of them of which even the chosen text is."""

    def __str__(self) -> str:
        """One line for a person; empty if every caption fits."""
        if not self.longer:
            return ""
        read = {
            "truncate": "truncated, while their targets come from the whole text (data.long_captions has other ways)",
            "best_sentence": "their sentence with most concepts is read",
            "sentences": "their sentences with most concepts are read, as many as fit",
        }[self.mode]
        still = (
            f", {self.truncated:,} of these truncated" if self.truncated and self.mode != "truncate" else ""
        )
        share = 100 * self.longer / len(self.texts)
        return (
            f"{self.longer:,} of {len(self.texts):,} captions ({share:.1f} %) are longer than the text tower's "
            f"{self.context} tokens: {read}{still}"
        )


def clip_lengths(tokenizer: Any) -> tuple[Lengths, int]:
    """What an open_clip tokenizer makes of texts: their lengths, and how many tokens it keeps.

    ``open_clip.get_tokenizer(NAME)`` is one; it needs no model.
    """
    empty = np.asarray(tokenizer([""]))[0]
    context = len(empty)
    if not context:  # a pre-training tokenises by itself
        return lambda texts: np.zeros(len(texts), np.int64), 0
    filler = empty[-1]
    # Where padding is the end token itself (SigLIP), the end of a text is not seen; one that is too long ends in it.
    unseen = int(np.asarray(tokenizer(["a " * context]))[0, -1] == filler)

    def rows_of(texts: Sequence[str], width: int) -> NDArray[np.int64]:
        ids = np.asarray(tokenizer(list(texts), context_length=width))
        real = ids != filler
        last = width - np.argmax(real[:, ::-1], axis=1)
        return np.where(real.any(axis=1), last, 0).astype(np.int64) + unseen

    def lengths(texts: Sequence[str]) -> NDArray[np.int64]:
        if not len(texts):
            return np.zeros(0, np.int64)
        found = rows_of(texts, context)
        full = np.flatnonzero(found >= context)  # these fit exactly, or do not
        for some in np.array_split(full, -(-len(full) // _AT_ONCE)) if len(full) else ():
            found[some] = rows_of([texts[place] for place in some], max(LONGEST, context + 1))
        return found

    return lengths, context


def fit_captions(captions: Sequence[str], lengths: Lengths, context: int) -> FittedCaptions:
    """Captions as they are, and how many of them are longer than ``context`` tokens."""
    longer = int((lengths(captions) > context).sum())
    return FittedCaptions(list(captions), context, longer=longer, truncated=longer)


def fit_to_concepts(
    store: TargetStore, rows: Sequence[int], lengths: Lengths, context: int, mode: str
) -> FittedCaptions:
    """Captions of a store, those that are too long by their sentences.

    Args:
        store: captions and mentions.
        rows: of the store.
        lengths: counts tokens.
        context: tokens that the tower reads.
        mode: one of ``LONG_CAPTIONS``.
    """
    texts = [store.captions[row] for row in rows]
    if mode == "truncate":
        return fit_captions(texts, lengths, context)
    long = np.flatnonzero(lengths(texts) > context).tolist()
    spans = [sentences(texts[place]) for place in long]
    parts = [texts[place][start:end] for place, own in zip(long, spans, strict=True) for start, end in own]
    special = int(lengths([""])[0])
    counts = iter((lengths(parts) - special).tolist())
    mentions = _mentions(store, [store.image_ids[rows[place]] for place in long])
    for place, own in zip(long, spans, strict=True):
        tokens = [next(counts) for _ in own]
        said = mentions.get(store.image_ids[rows[place]], [])
        concepts = [len({cui for a, b, cui in said if start <= a and b <= end}) for start, end in own]
        room = context - special if mode == "sentences" else 0
        kept = choose_sentences(concepts, tokens, room)
        texts[place] = " ".join(texts[place][slice(*own[one])] for one in kept)
    truncated = int((lengths([texts[place] for place in long]) > context).sum())
    return FittedCaptions(texts, context, mode, len(long), truncated)


def sentences(caption: str) -> list[Span]:
    """Places of a caption's sentences; at least one."""
    ends = [(match.start(), match.end()) for match in SENTENCE_END.finditer(caption)]
    starts = [0, *(end for _, end in ends)]
    spans = zip(starts, [*(start for start, _ in ends), len(caption)], strict=True)
    return [(start, end) for start, end in spans if caption[start:end].strip()] or [(0, len(caption))]


def choose_sentences(concepts: Sequence[int], tokens: Sequence[int], room: int) -> list[int]:
    """Places of the sentences to read, ascending: the one with most concepts, then each next one that still fits.

    Args:
        concepts: different concepts of each sentence; among equals the first comes first.
        tokens: of each sentence, without special ones.
        room: for all of them together; the first choice is read even if it does not fit.
    """
    order = sorted(range(len(concepts)), key=lambda place: (-concepts[place], place))
    kept, used = order[:1], tokens[order[0]]
    for place in order[1:]:
        if used + tokens[place] <= room:
            kept.append(place)
            used += tokens[place]
    return sorted(kept)


def _mentions(store: TargetStore, image_ids: Sequence[str]) -> dict[str, list[tuple[int, int, str]]]:
    """Start, end and CUI of the asserted mentions of some images that have a place in the caption."""
    if store.kind != KNOWLEDGE or not image_ids:
        return {}
    table = store.mentions
    table = table[table["image_id"].isin(list(image_ids)) & (table["start"] >= 0) & ~table["negated"]]
    asserted = {
        name: set(store.cuis[row]) for name, row in zip(image_ids, store.rows(list(image_ids)), strict=True)
    }
    found: dict[str, list[tuple[int, int, str]]] = {}
    for name, start, end, cui in zip(
        *(table[column] for column in ("image_id", "start", "end", "cui")), strict=True
    ):
        if cui in asserted[name]:
            found.setdefault(name, []).append((int(start), int(end), str(cui)))
    return found
