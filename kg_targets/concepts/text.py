"""Caption text: folded for matching, code point by code point, so that offsets stay; and split into sentences.

Nearly every code point maps to exactly one: lower case, accents dropped, dashes, slashes and white space to a blank,
combining marks and zero-width characters to a sentinel. Ligatures become their letters (ﬁ → fi, œ → oe). A second, rare
step closes runs of blanks and removes sentinels. Only where a length changes is a map of offsets needed.

A full stop ends a sentence unless it belongs to a number ("3.5 cm"), a known abbreviation ("Fig. 1", "approx."), or a
single letter ("E. coli"; but "T2." does end one).

Of overlapping spans the longest wins, then the leftmost.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from operator import itemgetter
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
CodePoints = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]

_new = tuple.__new__  # makes a named tuple in half the time of its class
_ZERO_WIDTH = "\u2060"  # stands for every code point that has no width
ZERO_WIDTH_SPACE = "\u200b"
SOFT_HYPHEN = "\u00ad"
WORDLESS_FROM = 0x2E80
"""Code point from which on words are not separated by blanks."""
_DROPPED = re.compile(rf"(?<= )[ {_ZERO_WIDTH}]+|{_ZERO_WIDTH}+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_LIGATURES = {
    "\u0153": "oe",
    "\u0152": "OE",
    "\u00e6": "ae",
    "\u00c6": "AE",
}  # Unicode does not decompose them
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u00b4": "'", "\u201c": '"', "\u201d": '"'}


class _FoldTable(dict[int, str]):
    """A translation table that computes what it has not seen; at most one entry per code point of Unicode."""

    def __init__(self, *, keep_case: bool) -> None:
        super().__init__()
        self._keep_case = keep_case

    def __missing__(self, code: int) -> str:
        folded = self[code] = _fold_code_point(chr(code), self._keep_case)
        return folded


def _fold_code_point(char: str, keep_case: bool) -> str:
    """One code point for one code point, or a ligature's letters: see the module's docstring."""
    if char in _QUOTES:
        return _QUOTES[char]
    category = unicodedata.category(char)
    if category == "Cs":  # a lone surrogate cannot cross into the automaton
        return "\ufffd"
    if category == "Mn" or category == "Cf":
        return _ZERO_WIDTH
    if category in ("Pd", "Zs", "Zl", "Zp") or char in "\t\n\v\f\r\x85\u2212/":
        return " "
    base = "".join(c for c in unicodedata.normalize("NFKD", char) if unicodedata.category(c) != "Mn") or char
    base = "".join(_LIGATURES.get(c, c) for c in base)
    if len(base) == 1 or (category[0] == "L" and base.isascii() and base.isalpha()):
        char = base
    lowered = char if keep_case else char.lower()
    return lowered if len(lowered) == len(char) else char


_LOWER = _FoldTable(keep_case=False)
_CASED = _FoldTable(keep_case=True)


class _BreakTable(dict[int, str]):
    """Word characters stay, everything else becomes a blank; scripts written without blanks have no words."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kept = self[code] = char if char.isalnum() and code < WORDLESS_FROM else " "
        return kept


_BREAKS = _BreakTable()


_ASCII_LOWER = bytes(ord(_LOWER[code]) for code in range(128)) + bytes(range(128, 256))
_ASCII_BREAKS = bytes(ord(_BREAKS[code]) for code in _ASCII_LOWER[:128]) + bytes(128)
"""The same tables for bytes, which fold ASCII several times as fast."""
ASCII_CASED: npt.NDArray[np.uint8] = np.array([ord(_CASED[code]) for code in range(128)], np.uint8)
"""By code point, how `surface` writes it."""
_ASCII_LINES = _ASCII_LOWER[:10] + b"\n" + _ASCII_LOWER[11:]


def break_words(folded: str) -> str:
    """Folded text with a blank for every character that belongs to no word."""
    if folded.isascii():
        return folded.encode().translate(_ASCII_BREAKS).decode()
    return folded.translate(_BREAKS)


class Folded(NamedTuple):
    """A folded caption: its text, and the way back to its offsets."""

    text: str
    origin: list[int] | None
    """``origin[i]`` = offset in the caption of ``text[i]``, equal for a ligature's letters; None if both agree."""

    @property
    def search(self) -> str:
        """``break_words(text)`` between two blanks, so that every word has a blank on either side."""
        return f" {break_words(self.text)} "

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Code-point span in the caption of ``text[start:end]``."""
        if self.origin is None:
            return start, end
        return self.origin[start], self.origin[end - 1] + 1

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """The reverse of ``span``: the span in ``text`` of a code-point span in the caption."""
        if self.origin is None:
            return start, end
        return bisect_left(self.origin, start), bisect_left(self.origin, end)


def fold(caption: str) -> Folded:
    """Fold a caption for matching; never fails, whatever the string holds."""
    text = caption.translate(_LOWER)
    origin: list[int] | None = None
    if len(text) != len(caption):
        origin = [offset for offset, char in enumerate(caption) for _ in _LOWER[ord(char)]]
    if "  " in text or _ZERO_WIDTH in text:
        text, kept = _collapse(text)
        origin = kept if origin is None else [origin[offset] for offset in kept]
    return Folded(text, origin)


def fold_all(captions: Sequence[str]) -> list[Folded]:
    """Fold many captions at once, each as by `fold`; several times as fast where most code points are of ASCII."""
    lines = "\n".join(caption if "\n" not in caption else "" for caption in captions)
    lines = lines.encode("utf-8", "surrogatepass").translate(_ASCII_LINES).decode("utf-8", "surrogatepass")
    return [
        _new(Folded, (line, None))
        if len(line) == len(caption) and line.isascii() and "  " not in line
        else _folded(line, caption)
        for line, caption in zip(lines.split("\n"), captions, strict=False)  # "" has one line, too
    ]


def _folded(line: str, caption: str) -> Folded:
    """A caption whose code points of ASCII are folded already."""
    line = _NOT_ASCII.sub(_fold_rest, line)
    if len(line) != len(caption) or "  " in line or _ZERO_WIDTH in line:
        return fold(caption)
    return Folded(line, None)


def _fold_rest(match: re.Match[str]) -> str:
    return match.group().translate(_LOWER)


def _collapse(text: str) -> tuple[str, list[int]]:
    """Close runs of blanks and drop zero-width characters, keeping each survivor's offset."""
    parts: list[str] = []
    origin: list[int] = []
    kept = 0
    for match in _DROPPED.finditer(text):
        parts.append(text[kept : match.start()])
        origin += range(kept, match.start())
        kept = match.end()
    return "".join([*parts, text[kept:]]), [*origin, *range(kept, len(text))]


def code_points(text: str) -> CodePoints:
    """The code points of a text: uint8 if all are ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def fold_alias(alias: str) -> str:
    """An alias in the form in which it is searched for; equal to the folded text of the same wording."""
    return _closed(alias.translate(_LOWER))


def fold_aliases(aliases: list[str]) -> list[str]:
    """Fold many aliases at once, each as by `fold_alias`."""
    plain = "\n".join(alias if alias.isascii() and "\n" not in alias else "" for alias in aliases)
    text = plain.encode().translate(_ASCII_LINES).decode()
    while "  " in text:
        text = text.replace("  ", " ")
    lines = text.replace(" \n", "\n").replace("\n ", "\n").strip(" ").split("\n") if aliases else []
    return [
        line if line or not alias else fold_alias(alias) for line, alias in zip(lines, aliases, strict=True)
    ]


def surface(text: str) -> str:
    """An abbreviation in the form in which it is compared: as `fold_alias`, but with upper and lower case."""
    if text.isascii() and text.isalnum():
        return text  # nothing to fold
    return _closed(text.translate(_CASED))


def _closed(text: str) -> str:
    if "  " in text or _ZERO_WIDTH in text:
        text, _ = _collapse(text)
    return text.strip(" ")


_MARK = re.compile(r"\.+|[!?]+|[;\n]")  # searched for first: a set of characters is found fast
_STOP = re.compile(
    r"\.+(?=[\s\"')\]\u2019\u201d]|$)"
    r"|(?<=[a-z)])\.(?=[A-Z][a-z])"  # "fracture.No effusion"
    r"|;|\n\s*\n"
    r"|(?<=[^\s(])[!?]+(?=\s|$)"  # but "? pneumonia"
    r"|\n(?=[ \t]*(?:[-*\u2010-\u2015\u2022\u2023\u25aa\u25cf\u25e6\u00b7] ?\w|\d{1,2}[.)] ))"  # a bullet
    r"|(?P<line>\n)(?=[ \t]*[A-Z])"
)
_LONG_LINE = 60
"""Code points from which a line may be one that was wrapped."""
_GOES_ON = re.compile(
    r"(?:[,(/]|\b(?:an?|and|as|at|by|for|from|in|is|no|not|of|or|the|to|with|without))\s*$", re.I
)
_LAST_WORD = re.compile(r"([^\s(\[]*)$")
_ABBREVIATIONS = frozenset((
    "fig", "figs", "approx", "ca", "cf", "vs", "e.g", "eg", "i.e", "ie", "etc", "dr", "mr", "mrs", "prof", "no", "nos",
    "nr", "resp", "incl", "ref", "refs", "st", "al", "max", "min", "vol", "pat", "pt", "yr", "yrs", "wk", "mo", "hr",
    "sec", "ant", "post", "lat", "med", "sup", "inf", "art", "dept",
))  # fmt: skip
_NEEDS_NUMBER = frozenset(
    ["no", "nos", "nr", "fig", "figs", "ref", "refs"]
)  # "No. 5" but "... there was no."
_MAY_END = frozenset(
    ["etc", "al", "yr", "yrs", "wk", "mo", "hr", "sec"]
)  # end a sentence before a capital letter


def boundaries(caption: str) -> list[int]:
    """Code-point offsets at which a sentence (or a part closed by a semicolon) ends, the caption's length last."""
    ends = []
    reach = 0
    for mark in _MARK.finditer(caption):
        stop = _STOP.match(caption, mark.start()) if mark.start() >= reach else None
        if stop is not None:
            reach = stop.end()
            if not _continues(caption, stop):
                ends.append(reach)
    if not ends or ends[-1] != len(caption):
        ends.append(len(caption))
    return ends


def _continues(caption: str, match: re.Match[str]) -> bool:
    """Whether a full stop or a line break stands inside a sentence."""
    if match.group("line"):
        return _wraps(caption, match.start())
    if match.group() != ".":
        return False
    following = caption[match.end() : match.end() + 3].lstrip()
    if not following:
        return False
    before = _LAST_WORD.search(caption, max(0, match.start() - 12), match.start())
    word = before.group(1).lower() if before else ""
    if len(word) == 1 and word.isalpha() and not following[0].isupper():
        return True
    if word not in _ABBREVIATIONS:
        return False
    if word in _NEEDS_NUMBER:
        return following[0].isdigit() or following[0] in "("
    return not (word in _MAY_END and following[0].isupper())


def _wraps(caption: str, end: int) -> bool:
    """Whether the line that ends there may go on in the next: it is long, or ends in a comma or a word like "of"."""
    start = caption.rfind("\n", max(0, end - _LONG_LINE), end) + 1
    line = caption[start or max(0, end - _LONG_LINE) : end].strip()
    return len(line) >= _LONG_LINE - 2 or line == line.upper() or _GOES_ON.search(line) is not None


S = TypeVar("S", bound=tuple[int, int, object])
"""Anything that covers ``[start, end)`` of a text: named tuples that begin with both."""
_PLACE = itemgetter(0, 1)


def without_overlap(spans: list[S]) -> list[S]:
    """Longest first, then leftmost; what overlaps a chosen span goes. In reading order; O(n log n + text)."""
    if len(spans) < 2:
        return spans
    spans = sorted(spans, key=_PLACE)
    kept: list[S] = []
    first, longest = 0, spans[0]
    low, reach, _ = longest
    most = (
        reach - low
    )  # length of the longest span since the first that overlaps it, directly or through others
    for index, span in enumerate(spans):
        start, end, _ = span
        if start >= reach:
            if first == index - 1:
                kept.append(longest)  # nothing overlaps it
            else:
                kept += _settled(spans[first:index], longest, reach)
            first, longest, reach, most = index, span, end, end - start
        elif end - start > most:
            longest, most = span, end - start
        if end > reach:
            reach = end
    kept += _settled(spans[first:], longest, reach)
    return kept


def kept_spans(start: Ints, end: Ints) -> Ints:
    """Positions of the spans that `without_overlap` keeps; spans come by start, then by end."""
    if not len(start):
        return np.zeros(0, np.int64)
    reach = np.maximum.accumulate(end)
    first = np.flatnonzero(np.append(True, start[1:] >= reach[:-1]))  # of each cluster of spans that overlap
    size = np.diff(np.append(first, len(start)))
    cluster = np.repeat(np.arange(len(first)), size)
    length = end - start
    longest = np.flatnonzero(length == np.maximum.reduceat(length, first)[cluster])
    longest = longest[np.unique(cluster[longest], return_index=True)[1]]
    high = reach[first + size - 1]
    open_ = (size > 2) & ((start[longest] > start[first]) | (end[longest] < high))
    kept = longest[~open_]
    some = np.flatnonzero(open_[cluster])  # the rest: few overlap without one that covers all
    rows = zip(start[some].tolist(), end[some].tolist(), some.tolist(), strict=True)
    columns = (size[open_], longest[open_] - first[open_], high[open_])
    chosen: list[int] = []
    for count, at, reach_of in zip(*(column.tolist() for column in columns), strict=True):
        spans = list(islice(rows, count))
        chosen += [row for _, _, row in _settled(spans, spans[at], reach_of)]
    return np.sort(np.concatenate([kept, np.array(chosen, np.int64)]))


def _settled(cluster: list[S], longest: S, reach: int) -> list[S]:
    """What remains of spans that overlap, directly or through others; mostly one covers all."""
    if len(cluster) <= 2 or (longest[0] == cluster[0][0] and longest[1] == reach):
        return [longest]
    offset = cluster[0][0]
    taken = bytearray(reach - offset)
    kept = []
    for span in sorted(cluster, key=lambda span: (span[0] - span[1], span[0])):
        start, end = span[0] - offset, span[1] - offset
        if not any(taken[start:end]):
            taken[start:end] = b"\x01" * (end - start)
            kept.append(span)
    kept.sort(key=_PLACE)
    return kept
