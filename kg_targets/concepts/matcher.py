"""All patterns in many texts at once: an exact search in numpy over arrays that can be mapped from a file.

A pattern is found where it stands in a folded text between characters that belong to no word; its regular plural, where
it has one, is found too. All occurrences are reported, overlapping ones as well.

A batch of texts is one buffer of code points. With c_i the code points and B an odd number, the sums

    P_j = Σ_{i<j} c_i · B^i  (mod 2^64)        give every span a hash,  (P_e - P_s) · B^{-s},

in the same few operations. A table holds the hashes of all patterns up to the end of each of their words. From
every word of the texts at once the search goes on, word by word, as long as the table has the span: most are given up
after one word, and few are longer than four. What ends a pattern is then compared with its text, byte by byte, so that
the result is exact whatever the hashes do.

A letter or sign of a script that is written without blanks is a word by itself.

    table: sorted hashes, each as near behind the slot of its highest bits as there is room (linear probing), so that a
        look-up mostly costs one access. An entry says which pattern ends there, and whether longer ones go on.
    patterns: in the order of their hashes; text as UTF-8 with offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kg_targets.concepts.text import WORDLESS_FROM

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

_U = np.uint64
_BASE = 0x9E3779B97F4A7C15
_WORD, _SINGLE = 1, 2
_KINDS = np.array([chr(code).isalnum() for code in range(WORDLESS_FROM)] + [_SINGLE], np.uint8)
_LOAD = 0.6
_SPARE = 64
"""Slots behind the last home."""
_AT_ONCE = 1 << 14
_SAME_KEY, _ENDING = 1, 1
ENDINGS = ("", "s", "es")
"""Plural endings; a pattern may have one."""
_LONGEST_EDGE = 255
"""Signs before a pattern's first word or behind its last; a pattern with more is not found."""


class _Powers:
    """Powers of B and of its inverse, as many as were needed so far."""

    def __init__(self) -> None:
        self.up = self.down = np.ones(1, _U)

    def reach(self, count: int) -> None:
        """Have ``B^0`` to ``B^count``."""
        if len(self.up) <= count:
            size = 1 << count.bit_length()
            # `up` last: another thread takes its length as that of both.
            self.down, self.up = (
                np.concatenate([np.ones(1, _U), np.cumprod(np.full(size, _U(base)))])
                for base in (pow(_BASE, -1, 1 << 64), _BASE)
            )


_powers = _Powers()


class TextBatch:
    """Folded texts in one buffer, with their words and the sums from which spans are hashed.

    Shapes: T texts, N code points with a line break before the first text and behind each, W words.

    Args:
        joined: the texts, none of which has a line break, with one before the first and behind each.

    Attributes:
        bytes: as UTF-8, with eight zeros behind.
        codes: ``[N]``, uint8 if all are ASCII, else uint32.
        kinds: uint8 ``[N]``: whether a code point belongs to a word.
        base: int64 ``[T + 1]``: where each text begins, and where one more would.
        first, last: int64 ``[W]``: where words begin and end.
    """

    def __init__(self, joined: str) -> None:
        self.bytes: Bytes = np.frombuffer(joined.encode() + bytes(8), np.uint8)
        self._byte_of: Ints | None = None
        self.codes: npt.NDArray[Any]
        if joined.isascii():
            self.codes = self.bytes[:-8]
        else:
            self.codes = np.frombuffer(joined.encode("utf-32-le"), np.uint32)
            self._byte_of = np.flatnonzero(
                self.bytes[:-7] & 0xC0 != 0x80
            )  # the others go on with a code point
        self.kinds: Bytes = _KINDS.take(self.codes, mode="clip")
        word = self.kinds == _WORD
        edges = np.flatnonzero(word[1:] != word[:-1]) + 1
        self.first, self.last = edges[::2], edges[1::2]
        if len(single := np.flatnonzero(self.kinds == _SINGLE)):
            self.first = np.sort(np.concatenate([self.first, single]))
            self.last = np.sort(np.concatenate([self.last, single + 1]))
        count = len(self.codes)
        self.base: Ints = np.flatnonzero(self.codes == ord("\n")) + 1
        _powers.reach(count)
        self._sums: Hashes = np.zeros(count + 1, _U)
        np.multiply(self.codes, _powers.up[:count], out=self._sums[1:])
        np.cumsum(self._sums[1:], out=self._sums[1:])

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextBatch:
        """The batch of a list of texts."""
        return cls("\n".join(["", *texts, ""]))

    def owner(self, places: Ints) -> Ints:
        """The text in which each place lies."""
        return np.asarray(np.searchsorted(self.base, places, side="right") - 1)

    def hashes(self, start: Ints, end: Ints) -> Hashes:
        """Hash of each span of code points, all bits well mixed; never the one that marks an empty slot."""
        mixed = (self._sums.take(end) - self._sums.take(start)) * _powers.down.take(start)
        mixed ^= mixed >> _U(32)
        mixed *= _U(0xD6E8FEB86659FD93)
        mixed ^= mixed >> _U(32)
        return np.asarray(mixed & ~_U(1))

    def byte_spans(self, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """Where spans of code points begin in `bytes`, and how long they are there."""
        if self._byte_of is None:
            return start, end - start
        first = self._byte_of.take(start)
        return first, self._byte_of.take(end) - first

    @cached_property
    def words(self) -> Hashes:
        """Hash of each word."""
        return self.hashes(self.first, self.last)

    @cached_property
    def plural(self) -> list[Bools]:
        """For each plural ending, whether each word has it."""
        return [self._ends_with(ending) for ending in ENDINGS[1:]]

    def _ends_with(self, ending: str) -> Bools:
        """Whether each word ends so, with something before it."""
        found = self.last - self.first > len(ending)
        for back, char in enumerate(reversed(ending), start=1):
            found = found & (self.codes.take(self.last - back) == ord(char))
        return found


class Outlines(NamedTuple):
    """How the search sees each pattern of a list; ``[P]`` each."""

    key: Hashes
    """Of the span from its first word to its last."""
    whole: Hashes
    edges: Bytes
    """``[P, 2]``: code points before the first word and behind the last."""

    @classmethod
    def of(cls, batch: TextBatch) -> Outlines:
        """Outlines of patterns, each of which has a word."""
        words = np.searchsorted(batch.first, batch.base)
        first, last = batch.first[words[:-1]], batch.last[words[1:] - 1]
        start, stop = batch.base[:-1], batch.base[1:] - 1
        edges = np.stack([first - start, stop - last], axis=1)
        edges = np.minimum(edges, _LONGEST_EDGE).astype(np.uint8)
        return cls(batch.hashes(first, last), batch.hashes(start, stop), edges)


class Matches(NamedTuple):
    """Where patterns were found; ``[M]`` each, by start, then by end, then by the end of the bare pattern."""

    place: Ints
    """In the batch."""
    text: Ints
    start: Ints
    """In code points of the text, as the others."""
    bare_end: Ints
    """Where the pattern ends."""
    end: Ints
    """Where its plural ending ends, equal if there is none."""
    pattern: Ints


class PatternIndex(NamedTuple):
    """The arrays of the search; see the module's docstring.

    Shapes: P patterns, S slots.
    """

    hashes: Hashes
    """``[S]``"""
    entries: npt.NDArray[np.uint32]
    """``[S]``: twice one more than the first pattern that ends there, or 0; plus 1 where longer ones go on."""
    text: Bytes
    """All patterns, with eight zeros behind."""
    offsets: Ints
    """``[P + 1]``"""
    edges: Bytes
    """``[P, 2]``: code points before the first word and behind the last."""
    marks: Bytes
    """``[P]``: 1 where the next pattern has the same key, plus twice the position of its plural ending."""

    @classmethod
    def of(cls, patterns: Sequence[str]) -> PatternIndex:
        """An index of few patterns, distinct and with a word each, without plural endings."""
        outline = Outlines.of(TextBatch.of(patterns))
        order = np.lexsort((outline.whole, outline.key))
        data = [patterns[position].encode() for position in order.tolist()]
        return cls.assemble(
            np.frombuffer(b"\n".join([b"", *data, bytes(8)]), np.uint8),
            np.cumsum([1, *(len(part) + 1 for part in data)]),
            Outlines(*(column[order] for column in outline)),
            np.zeros(len(data), np.uint8),
        )

    @classmethod
    def assemble(cls, text: Bytes, offsets: Ints, outline: Outlines, endings: Bytes) -> PatternIndex:
        """The index of patterns that are distinct and in the order of their keys.

        Args:
            text: all of them as UTF-8, with a line break before the first and behind each, and eight zeros.
            offsets: where each begins, and where one more would.
            outline: of each.
            endings: which plural ending each may have, by position in `ENDINGS`.
        """
        same = np.append(outline.key[1:] == outline.key[:-1], False)[: len(endings)]
        first = np.flatnonzero(~np.append(False, same[:-1])[: len(endings)])
        hashes, goes_on = _spans(text, offsets)
        entries = goes_on.astype(np.int64)
        entries[np.searchsorted(hashes, outline.key[first])] += 2 * (first + 1)
        slots, size = _slots(hashes)
        table, values = np.full(size, ~_U(0)), np.zeros(size, np.uint32)
        table[slots], values[slots] = hashes, entries
        marks = (same + (endings.astype(np.int64) << _ENDING)).astype(np.uint8)
        return cls(table, values, text, offsets, outline.edges, marks)

    def __len__(self) -> int:
        return len(self.marks)

    def pattern(self, index: int) -> str:
        """The text of one pattern."""
        return self.text[self.offsets[index] : self.offsets[index + 1] - 1].tobytes().decode()

    def find(self, batch: TextBatch, *, plurals: bool = True) -> Matches:
        """All occurrences of all patterns.

        Args:
            batch: the texts.
            plurals: look for the plurals of those that have one, too.
        """
        start, end, pattern, ending = self._candidates(batch, batch.plural if plurals else [])
        edges = self.edges.take(pattern, axis=0)
        start, end = start - edges[:, 0], end + edges[:, 1]
        good = (ending == 0) | (self.marks.take(pattern) >> _ENDING == ending)
        good &= (start > 0) & (end + ending < len(batch.codes))
        start, end, pattern, ending = (column.compress(good) for column in (start, end, pattern, ending))
        good = (batch.kinds.take(start - 1) != _WORD) & (batch.kinds.take(end + ending) != _WORD)
        good &= self._equal(batch, start, end, pattern)
        start, end, pattern, ending = (column.compress(good) for column in (start, end, pattern, ending))
        order = np.lexsort((end, end + ending, start))
        start, end, pattern, ending = (column.take(order) for column in (start, end, pattern, ending))
        text = batch.owner(start)
        base = batch.base.take(text)
        return Matches(start, text, start - base, end - base, end - base + ending, pattern)

    def positions(self, names: Sequence[str]) -> Ints:
        """Position of each folded name among the patterns, -1 where it is none."""
        found = self.find(TextBatch.of(names))
        lengths = np.fromiter(map(len, names), np.int64, len(names))
        exact = (found.start == 0) & (found.end == found.bare_end) & (found.end == lengths.take(found.text))
        positions = np.full(len(names), -1)
        positions[found.text[exact]] = found.pattern[exact]
        return positions

    def _candidates(self, batch: TextBatch, plural: list[Bools]) -> tuple[Ints, Ints, Ints, Ints]:
        """Spans from a word's beginning to a word's end, or its bare form's, whose hash is that of patterns.

        Args:
            batch: the texts.
            plural: for each plural ending that counts, whether each word has it.
        """
        begin = reach = np.arange(len(batch.first))  # by position of the first word and of the last
        found: list[tuple[Ints, Ints, Ints, Ints]] = []
        while len(begin):
            start, end = batch.first.take(begin), batch.last.take(reach)
            hashes = [batch.hashes(start, end) if found else batch.words]
            bare = [np.flatnonzero(ends.take(reach)) for ends in plural]
            ending = np.repeat(np.arange(1 + len(plural)), [len(start), *map(len, bare)])
            for size, rows in enumerate(bare, start=1):
                hashes.append(batch.hashes(start.take(rows), end.take(rows) - size))
            start = np.concatenate([start, *(start.take(rows) for rows in bare)])
            end = np.concatenate([end, *(end.take(rows) - size for size, rows in enumerate(bare, start=1))])
            entry = self._look_up(np.concatenate(hashes))
            known = np.flatnonzero(entry > 1)
            found.append(
                (start.take(known), end.take(known), (entry.take(known) >> 1) - 1, ending.take(known))
            )
            longer = np.flatnonzero(entry[: len(begin)] & 1)
            begin, reach = begin.take(longer), reach.take(longer) + 1
            inside = reach < len(batch.first)
            begin, reach = begin.compress(inside), reach.compress(inside)
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        start, end, pattern, ending = columns if found else [np.zeros(0, np.int64)] * 4
        return self._with_same_hash(start, end, pattern.astype(np.int64), ending)

    def _with_same_hash(
        self, start: Ints, end: Ints, pattern: Ints, ending: Ints
    ) -> tuple[Ints, Ints, Ints, Ints]:
        """The candidates, and again for each further pattern of the same hash."""
        found = [(start, end, pattern, ending)]
        while len(rows := np.flatnonzero(self.marks.take(found[-1][2]) & _SAME_KEY)):
            start, end, pattern, ending = (column.take(rows) for column in found[-1])
            found.append((start, end, pattern + 1, ending))
        if len(found) == 1:
            return found[0]
        start, end, pattern, ending = (np.concatenate(column) for column in zip(*found, strict=True))
        return start, end, pattern, ending

    def _look_up(self, hashes: Hashes) -> Ints:
        """The entry of each hash, 0 where the table has none."""
        slot = _home(hashes, len(self.hashes) - _SPARE)
        behind = np.flatnonzero(self.hashes.take(slot) < hashes)
        while len(behind):
            slot[behind] += 1
            behind = behind[self.hashes.take(slot.take(behind)) < hashes.take(behind)]
        return np.where(self.hashes.take(slot) == hashes, self.entries.take(slot), 0).astype(np.int64)

    def _equal(self, batch: TextBatch, start: Ints, end: Ints, pattern: Ints) -> Bools:
        """Whether each span has exactly the text of its pattern."""
        place, length = batch.byte_spans(start, end)
        first = self.offsets.take(pattern)
        equal: Bools = self.offsets.take(pattern + 1) - first - 1 == length
        rows = np.flatnonzero(equal)
        equal[rows] = same_bytes(
            batch.bytes, place.take(rows), self.text, first.take(rows), length.take(rows)
        )
        return equal


_KEPT = np.array([*((1 << 8 * count) - 1 for count in range(8)), (1 << 64) - 1], _U)
"""By how many bytes are left: which of eight count."""


def same_bytes(left: Bytes, at: Ints, right: Bytes, other: Ints, length: Ints) -> Bools:
    """Whether ``left[at:at + length]`` is ``right[other:other + length]``, for many spans; eight bytes at a time.

    Both buffers have eight bytes more than the spans need.
    """
    ours: Hashes = np.ndarray((len(left) - 7,), "<u8", left, strides=(1,))
    theirs: Hashes = np.ndarray((len(right) - 7,), "<u8", right, strides=(1,))
    same = np.ones(len(at), np.bool_)
    rows = np.arange(len(at))
    while len(rows):
        differs = ((ours[at] ^ theirs[other]) & _KEPT.take(np.minimum(length, 8))) != 0
        same[rows[differs]] = False
        on = np.flatnonzero(~differs & (length > 8))
        rows, at, other, length = rows[on], at[on] + 8, other[on] + 8, length[on] - 8
    return same


def _home(hashes: Hashes, capacity: int) -> Ints:
    """The slot of each hash: where its upper half lies between 0 and 2³², in order."""
    return ((hashes >> _U(32)) * _U(capacity) >> _U(32)).astype(np.int64)


def _slots(hashes: Hashes) -> tuple[Ints, int]:
    """A slot for each of the sorted, distinct hashes, and how many there are; the last stays empty."""
    capacity = int(len(hashes) / _LOAD) + 1
    steps = np.arange(len(hashes))
    while True:
        slots = steps + np.maximum.accumulate(_home(hashes, capacity) - steps)
        if slots.max(initial=0) < capacity + _SPARE - 1:
            return slots, capacity + _SPARE
        capacity += capacity // 8 + 1


def _spans(text: Bytes, offsets: Ints) -> tuple[Hashes, Bools]:
    """Sorted hashes of all patterns up to the end of each of their words, and whether a pattern goes on there."""
    found = [np.zeros(0, _U)]
    for low in range(0, len(offsets) - 1, _AT_ONCE):
        high = min(low + _AT_ONCE, len(offsets) - 1)
        batch = TextBatch(text[offsets[low] - 1 : offsets[high]].tobytes().decode())
        words = np.searchsorted(batch.first, batch.base)
        hashes = batch.hashes(np.repeat(batch.first[words[:-1]], np.diff(words)), batch.last)
        hashes |= _U(1)  # the lowest bit, which is free, says that the pattern goes on
        hashes[words[1:] - 1] &= ~_U(1)
        found.append(np.unique(hashes))
    flagged = np.concatenate(found)
    flagged.sort()
    bare = flagged & ~_U(1)
    last = np.append(bare[1:] != bare[:-1], True)[: len(bare)]
    return bare[last], (flagged[last] & _U(1)).astype(bool)
