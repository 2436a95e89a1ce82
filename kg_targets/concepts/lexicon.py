"""A lexicon: search patterns, and which concepts each can mean; all in columns, which a file maps into memory.

It is made by `kg_targets.concepts.lexicon_build` and holds no object for a name: a `Sense` is made when a text has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kg_targets.concepts.matcher import PatternIndex
from kg_targets.concepts.predicates import split_alias
from kg_targets.concepts.shorthand import Shorthand, shorthand_lines
from kg_targets.concepts.text import ASCII_CASED
from kg_targets.ontology.concept import format_cui

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
_REMEMBERED = 1 << 16
"""Senses that are kept."""
_AT_ONCE = 1 << 16
CASED, ADJECTIVE, SHORT = 1, 2, 4
"""Marks of a pattern that needs a second look: its case matters, its subject, or what kind of text it is."""
NEGATABLE, PLACE = 1, 2
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Sense:
    """One reading of a pattern."""

    cui: str
    """Empty for a stopped phrase, which takes its place in the text and yields no mention."""
    name: str
    exact: str
    """The wording with its upper and lower case where that matters (abbreviations), else ``""``."""
    negatable: bool
    """Absence can be said of it: findings, devices, procedures, contrast."""
    place: bool
    """A region or an organ: absent only when directly named so ("absent left kidney")."""
    needs_name: bool = False
    """A short abbreviation that counts only where the caption also spells the concept out."""
    apart: bool = False
    """An adjective with its subject before it, and what is said of both in between; see `predicates`."""


class Hit(NamedTuple):
    """A match on word boundaries, in offsets of the folded text."""

    start: int
    end: int
    sense: Sense


class Strings(NamedTuple):
    """Many strings in one buffer, UTF-8."""

    data: Bytes
    offsets: Ints
    """Where each begins, and where one more would."""

    @classmethod
    def of(cls, strings: pa.Array) -> Strings:
        """The strings of an Arrow array."""
        column = strings.cast(pa.large_string())
        _, offsets, data = column.buffers()
        ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        return cls(np.frombuffer(data or b"", np.uint8), ends)

    def at(self, index: int) -> str:
        """One of them."""
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()


class Concepts(NamedTuple):
    """What patterns can mean; ``[C]`` each but the last."""

    cuis: npt.NDArray[np.int32]
    roles: Bytes
    """Sum of `NEGATABLE`, `PLACE`."""
    names: Strings
    exacts: Strings
    """The distinct wordings of abbreviations, whose case matters; the first is empty."""


class Senses(NamedTuple):
    """The senses of all patterns, best first.

    Shapes: P patterns, S senses.
    """

    starts: Ints
    """``[P + 1]``: where the senses of each pattern begin."""
    concept: npt.NDArray[np.int32]
    """``[S]``, by position; `NOTHING` for a pattern that takes its place in the text and means nothing."""
    exact: npt.NDArray[np.int32]
    """``[S]``, by position: the wording whose case matters."""
    needs_name: npt.NDArray[np.bool_]
    """``[S]``"""
    marks: Bytes
    """``[P]``: sum of `CASED`, `ADJECTIVE`, `SHORT`."""
    pairs: Ints
    """The patterns that predicates take apart ("enlarged heart"), by position."""


class Lexicon:
    """Search patterns and the readings of each.

    Attributes:
        index: finds the patterns in texts.
        columns: what patterns mean.
        concepts: what they can mean.
        marks: uint8, of each pattern, sum of `CASED`, `ADJECTIVE`, `SHORT`.
        skipped: aliases left out, counted by reason.
    """

    def __init__(
        self,
        index: PatternIndex,
        columns: Senses,
        concepts: Concepts,
        skipped: dict[str, int],
        source: tuple[Callable[[Path], Lexicon], Path] | None = None,
    ) -> None:
        self.index = index
        self.columns = columns
        self.concepts = concepts
        self.marks = columns.marks
        self.skipped = skipped
        self._source = source
        self._known: dict[int, Sense] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # What is mapped from files is mapped again by another process, which then shares its memory.
        if self._source is not None:
            return self._source[0], (self._source[1],)
        return Lexicon, (self.index, self.columns, self.concepts, self.skipped)

    def senses(self, pattern: int) -> list[Sense]:
        """The readings of a pattern, best first."""
        return self.read(range(*self.columns.starts[pattern : pattern + 2].tolist()))

    def read(self, rows: Iterable[int]) -> list[Sense]:
        """The senses at some rows of `columns`."""
        known, sense = self._known.get, self._sense
        return [known(row) or sense(row) for row in rows]

    def as_written(self, patterns: Ints, text: npt.NDArray[Any], start: Ints, length: Ints) -> Ints:
        """The row of the first sense of each pattern whose upper and lower case a text has, `NOTHING` if none has it.

        Args:
            patterns: ``[N]``
            text: code points, of ASCII where a pattern is.
            start: ``[N]``: where each pattern is in ``text``.
            length: ``[N]``: how long it is there; 0 where only a sense without case counts.
        """
        exacts, (starts, _, exact_of, *_) = self.concepts.exacts, self.columns
        rows, ends = starts.take(patterns), starts.take(patterns + 1)
        found = np.full(len(rows), NOTHING)
        left = np.arange(len(rows))
        while len(left):
            row = rows.take(left)
            exact = exact_of.take(row)
            first, size = exacts.offsets.take(exact), length.take(left)
            same = exacts.offsets.take(exact + 1) - first == size
            some = np.flatnonzero(same)  # those that are as long are compared, one code point after the other
            place = start.take(left)
            for at in range(int(size.take(some).max(initial=0))):
                some = some.compress(size.take(some) > at)
                code = ASCII_CASED.take(text.take(place.take(some) + at), mode="clip")
                differs = exacts.data.take(first.take(some) + at) != code
                same[some.compress(differs)] = False
                some = some.compress(~differs)
            same |= exact == 0
            found[left.compress(same)] = row.compress(same)
            rows[left] += 1
            left = left.compress(~same & (row + 1 < ends.take(left)))
        return found

    def _sense(self, row: int) -> Sense:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[row] = sense = self._made(row)
        return sense

    def _made(self, row: int) -> Sense:
        concept = int(self.columns.concept[row])
        if concept == NOTHING:
            pattern = int(np.searchsorted(self.columns.starts, row, side="right")) - 1
            return Sense("", self.index.pattern(pattern), "", False, False)
        about, roles = self.concepts, int(self.concepts.roles[concept])
        return Sense(
            format_cui(int(about.cuis[concept])),
            about.names.at(concept),
            about.exacts.at(int(self.columns.exact[row])),
            bool(roles & NEGATABLE),
            bool(roles & PLACE),
            bool(self.columns.needs_name[row]),
        )

    @cached_property
    def shorthand(self) -> dict[int, tuple[Shorthand, Sense]]:
        """For patterns that are shorthand: its line and what it means in a report."""
        lines = shorthand_lines()
        shorts = self.index.positions([line.short for line in lines]).tolist()
        longs = self.index.positions([line.long for line in lines]).tolist()
        return {
            short: (line, self.senses(long)[0])
            for line, short, long in zip(lines, shorts, longs, strict=True)
            if short >= 0 and long >= 0 and self.marks[short] & SHORT and self.senses(long)[0].cui
        }

    @cached_property
    def predicates(self) -> dict[int, dict[str, int]]:
        """For adjectives, which pattern their meaning stands at, by subject; see `kg_targets.concepts.predicates`."""
        pairs: dict[str, dict[str, int]] = {}
        for pattern in self.columns.pairs.tolist():
            if pair := split_alias(self.index.pattern(pattern)):
                pairs.setdefault(pair[0], {})[pair[1]] = pattern
        return dict(zip(self.index.positions(list(pairs)).tolist(), pairs.values(), strict=True))

    def apart(self, pattern: int) -> Sense:
        """The meaning of a name whose subject stands before its adjective."""
        return replace(self.senses(pattern)[0], apart=True)

    def patterns(self) -> Iterator[str]:
        """All patterns in the order of the index."""
        offsets = self.index.offsets
        for low in range(0, len(self.index), _AT_ONCE):
            high = min(low + _AT_ONCE, len(self.index))
            part = self.index.text[offsets[low] : offsets[high] - 1].tobytes().decode()
            yield from part.split("\n")
