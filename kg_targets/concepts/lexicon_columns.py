"""Readings of patterns, in any order, to the columns of a lexicon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kg_targets.concepts.lexicon import ADJECTIVE, CASED, NOTHING, SHORT, Concepts, Lexicon, Senses
from kg_targets.concepts.matcher import ENDINGS, Outlines, PatternIndex, TextBatch, same_bytes
from kg_targets.concepts.variants import plural_suffix

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

NEEDS_NAME, PAIR = 8, 16
"""Marks of a reading beside `ADJECTIVE` and `SHORT`: a doubtful abbreviation; a name that predicates take apart."""
_ENDING_CODES = {ending: code for code, ending in enumerate(ENDINGS)}
_AT_ONCE = 1 << 18


class Rows(NamedTuple):
    """Readings of patterns, ``[R]`` each."""

    text: Bytes
    """Their patterns as UTF-8, with a line break behind each, and eight zeros."""
    size: Ints
    """Bytes of each pattern, with the line break."""
    key: npt.NDArray[np.uint64]
    whole: npt.NDArray[np.uint64]
    edges: Bytes
    """See `Outlines`."""
    ending: Bytes
    concept: npt.NDArray[np.int32]
    exact: npt.NDArray[np.int32]
    preference: Ints
    """Least first."""
    marks: Bytes

    @classmethod
    def of(cls, patterns: list[str], columns: Iterable[Sequence[int]]) -> Rows:
        """Rows of patterns and their other columns: concept, exact, preference, marks."""
        batch = TextBatch.of(patterns)
        breaks = np.flatnonzero(batch.bytes == ord("\n"))
        concept, exact, preference, marks = columns
        endings = [_ENDING_CODES[plural_suffix(pattern)] for pattern in patterns]
        return cls(
            batch.bytes[1:-8],
            np.diff(breaks),
            *Outlines.of(batch),
            np.array(endings, np.uint8),
            np.array(concept, np.int32),
            np.array(exact, np.int32),
            np.array(preference, np.int64),
            np.array(marks, np.uint8),
        )


def assemble(parts: list[Rows], concepts: Concepts, skipped: dict[str, int]) -> Lexicon:
    """Unite readings of the same pattern, the preferred first, and index the patterns; empties ``parts``."""
    columns = list(zip(*parts, strict=True))
    parts.clear()
    columns[0] += (np.zeros(8, np.uint8),)
    rows = Rows(*(np.concatenate(columns.pop(0)) for _ in Rows._fields))
    order, new = _by_pattern(rows)
    begins, size = (np.cumsum(rows.size) - rows.size)[order[new]], rows.size[order[new]]
    first = order[new]
    text, offsets = _gathered(rows.text, begins, size)
    outline = Outlines(rows.key[first], rows.whole[first], rows.edges[first])
    index = PatternIndex.assemble(text, offsets, outline, rows.ending[first])
    starts = np.flatnonzero(new)
    marks = np.bitwise_or.reduceat(rows.marks[order], starts) if len(starts) else rows.marks
    best_exact, best_concept = rows.exact[first], rows.concept[first]
    pairs = np.flatnonzero((marks & PAIR > 0) & (best_exact == 0) & (best_concept != NOTHING))
    pattern = np.cumsum(new) - 1
    kept = _distinct(pattern, rows.concept[order], rows.exact[order])
    order, pattern = order[kept], pattern[kept]
    senses = Senses(
        np.searchsorted(pattern, np.arange(len(first) + 1)),
        rows.concept[order],
        rows.exact[order],
        rows.marks[order] & NEEDS_NAME > 0,
        (marks & (ADJECTIVE | SHORT)) | CASED * (best_exact > 0).astype(np.uint8),
        pairs,
    )
    return Lexicon(index, senses, concepts, skipped)


def _by_pattern(rows: Rows) -> tuple[Ints, Bools]:
    """The order of rows by pattern and preference, and which then are the first of their pattern."""
    order = np.lexsort((rows.preference, rows.whole, rows.key))
    begins = np.cumsum(rows.size) - rows.size
    alike = np.zeros(len(order), bool)
    alike[1:] = rows.key[order[1:]] == rows.key[order[:-1]]
    alike[1:] &= rows.whole[order[1:]] == rows.whole[order[:-1]]

    def differing() -> Ints:
        """Rows that have their neighbour's hashes and not its text."""
        later = np.flatnonzero(alike)
        one, other = order[later], order[later - 1]
        same = rows.size[one] == rows.size[other]
        rest = np.flatnonzero(same)
        one, other = one[rest], other[rest]
        same[rest] = same_bytes(rows.text, begins[one], rows.text, begins[other], rows.size[one])
        return np.asarray(later[~same])

    run = np.cumsum(~alike)
    for number in np.unique(run[differing()]):  # hashes that clash: hardly ever any
        part = np.flatnonzero(run == number)
        texts = {row: rows.text[begins[row] :][: rows.size[row]].tobytes() for row in order[part].tolist()}
        order[part] = sorted(texts, key=texts.__getitem__)
    alike[differing()] = False
    return order, ~alike


def _gathered(text: Bytes, begins: Ints, size: Ints) -> tuple[Bytes, Ints]:
    """Spans of a text one after the other, a line break before and eight zeros behind, and where each begins."""
    offsets = np.concatenate([[1], 1 + np.cumsum(size)])
    gathered = np.zeros(int(offsets[-1]) + 8, np.uint8)
    gathered[0] = ord("\n")
    for low in range(0, len(size), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        start, length = offsets[low], size[part]
        shift = np.repeat(begins[part] - (offsets[:-1][part] - start), length)
        gathered[start : start + len(shift)] = text[shift + np.arange(len(shift))]
    return gathered, offsets


def _distinct(pattern: Ints, concept: npt.NDArray[np.int32], exact: npt.NDArray[np.int32]) -> Ints:
    """Positions of the first row of each pattern, concept and wording; patterns come in ascending order."""
    order = np.lexsort((exact, concept, pattern))
    again = np.zeros(len(order), bool)
    again[1:] = True
    for column in (pattern, concept, exact):
        again[1:] &= column[order[1:]] == column[order[:-1]]
    return np.sort(order[~again])
