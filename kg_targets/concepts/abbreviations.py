"""Abbreviations that a caption defines itself: "portal vein (PV)", "PV = portal vein", "PV (portal vein)".

In such a caption PV means the portal vein, whatever an ontology says of PV elsewhere. Whether the short form fits the
long one is decided as by Schwartz & Hearst (A Simple Algorithm for Identifying Abbreviation Definitions in Biomedical
Text, PSB 2003): its characters occur in the long form in order, the first of them at its beginning. A long form that is
no concept takes from its short form what it means elsewhere: "local anesthetic (LA)" is no left atrium.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter

import numpy as np

from kg_targets.concepts.lexicon import Hit, Sense
from kg_targets.concepts.matcher import TextBatch
from kg_targets.concepts.text import CodePoints, Folded, fold_alias, without_overlap

_UNKNOWN = Sense("", "", "", False, False)
_LONGEST = 3  # longer abbreviations mean one thing
_SIGNED = re.compile(  # what every definition has
    r"[A-Z][a-z0-9]{0,6}[A-Z][A-Za-z0-9]{0,6}\s*[=:,(\u2013\-)\];]\s*"
)
_SIGN, _BLANK = 1, 2
_ENDS_SHORT = np.zeros(0x3002, np.uint8)
"""By code point, what can stand behind a short form."""
_ENDS_SHORT[[*map(ord, "=:,(\u2013-)];")]] = _SIGN
_ENDS_SHORT[[code for code in range(len(_ENDS_SHORT)) if chr(code).isspace()]] = _BLANK
_SHORT = r"([A-Z][A-Za-z0-9]{1,7})"
_BEHIND = re.compile(rf"\s*[(\[]{_SHORT}[)\],;]")  # portal vein (PV)
_BEFORE = re.compile(rf"(?<![A-Za-z0-9]){_SHORT}\s*[=:,(\u2013-]\s*$")  # PV = portal vein
_WORD = re.compile(r"(?<![A-Za-z0-9])[A-Z][A-Za-z0-9]{1,8}(?![A-Za-z0-9])")
_CLOSED = re.compile(r"\s*(?:$|[.,;:)\]\n])")
_STANDS_FOR = re.compile(r"\s{0,3}(?:[=:(]|,(?=[^,]{0,200}(?:[;.]|$)))\s{0,3}([^.,;:()=]{3,200})")
_REACH = 16  # code points in which a short form and its sign can stand before a long form
_LONG_REACH = 120  # code points in which a long form of several words is looked for
_OPEN = ("(", "[")
_CLOSE = (")", "]", ",", ";")
_CLAUSE = re.compile(r"[.;:()\[\]]")


def may_define(batch: TextBatch, written: CodePoints) -> set[int]:
    """The texts in which a sign stands behind a word with two capitals, as in every definition.

    Args:
        batch: folded texts.
        written: code points with upper and lower case of what was folded, each in its place; line breaks in the place
            of texts that take no part, which all count.
    """
    capitals = np.cumsum((written >= ord("A")) & (written <= ord("Z")), dtype=np.int32)
    several = capitals.take(batch.last - 1) - capitals.take(batch.first - 1) > 1
    behind = batch.last.compress(several)
    first, second = (
        _ENDS_SHORT.take(written.take(behind + step, mode="clip"), mode="clip") for step in (0, 1)
    )
    signed = behind.compress((first == _SIGN) | ((first == _BLANK) & (second > 0)))
    unread = batch.base[:-1].compress(written.take(batch.base[:-1]) == ord("\n"))
    return set(batch.owner(np.concatenate([signed, unread])).tolist())


def with_definitions(
    caption: str, folded: Folded, kept: list[Hit], every: Callable[[], list[Hit]]
) -> list[Hit]:
    """The hits, with every occurrence of a defined abbreviation read as defined last before it.

    Args:
        caption: a text.
        folded: the same.
        kept: its hits, without overlap.
        every: gives all of them.
    """
    signed = list(_SIGNED.finditer(caption))
    if not signed:
        return kept
    shorts = {match.start() for match in signed}
    beside = {match.end() for match in signed}  # where a long form begins, or ends
    beside |= {_before_brackets(caption, start) for start in shorts}
    known: dict[int, tuple[str, Sense]] = {}
    unknown: dict[int, tuple[str, Sense]] = {}
    for start, end, sense in kept:  # "pulmonary artery", not the "pulmonary" in it
        if folded.origin is not None:
            start, end = folded.span(start, end)
        if end - start > _LONGEST:
            if (start in beside or end in beside) and not sense.exact:
                known |= {at: (short, sense) for at, short in _short_forms(caption, start, end)}
        elif start in shorts and sense.cui and (short := caption[start:end]).isalpha() and short.isupper():
            long = _defined_here(caption, start, end, sense.negatable or sense.place)
            if long and not _alike(long, sense.name):
                unknown[start] = short, _UNKNOWN
    if not known and not unknown:
        return kept
    defined: dict[str, list[tuple[int, Sense]]] = {}
    for at, (short, sense) in sorted({**unknown, **known}.items(), key=lambda item: item[0]):
        defined.setdefault(short, []).append((at, sense))
    spans = {}
    for match in _WORD.finditer(caption):
        for short in {match.group(), match.group().removesuffix("s")} & defined.keys():
            before = bisect_right(defined[short], match.start(), key=itemgetter(0))
            place = folded.locate(match.start(), match.end())
            spans[place] = defined[short][max(before - 1, 0)][1]
    others = [hit for hit in every() if (hit.start, hit.end) not in spans]
    return without_overlap(others + [Hit(start, end, sense) for (start, end), sense in spans.items()])


def _before_brackets(caption: str, end: int) -> int:
    """Where what stands before ``end`` ends, less blanks and opening brackets."""
    while end and (caption[end - 1] in _OPEN or caption[end - 1].isspace()):
        end -= 1
    return end


def _defined_here(caption: str, start: int, end: int, apposed: bool) -> str:
    """The long form of several words that stands beside the short form ``caption[start:end]``; empty if there is none.

    Args:
        apposed: take "local anesthetic, LA, was given", too; an imaging method in a list looks the same.
    """
    short, sign, after = caption[start:end], caption[start - 1 : start], caption[end : end + 1]
    before = caption[max(0, start - 1 - _LONG_REACH) : max(0, start - 1)]
    if sign in _OPEN and sign and after in _CLOSE:
        words = _CLAUSE.split(before)[-1].split()
        return _long_form(short, words[-min(len(short) + 5, 2 * len(short)) :])
    if found := _STANDS_FOR.match(caption, end):
        words = found.group(1).split()
        if _initials(words) == short:
            return " ".join(words)
    if apposed and after == "," and before.endswith(","):
        words = before[:-1].split()[-len(short) :]
        if _initials(words) == short:
            return " ".join(words)
    return ""


def _initials(words: list[str]) -> str:
    return "".join(word[0] for word in words).upper()


def _long_form(short: str, words: list[str]) -> str:
    """The shortest end of ``words``, of two at least, that the short form can abbreviate."""
    for first in range(len(words) - 2, -1, -1):
        long = " ".join(words[first:])
        if fits(short, long):
            return long
    return ""


def _alike(long: str, name: str) -> bool:
    """Whether a long form speaks of a concept: most words of its name begin like one of the long form's."""
    begins = {word[:4] for word in re.findall(r"[a-z]{3,}", fold_alias(long))}
    words = [word[:4] for word in re.findall(r"[a-z]{3,}", fold_alias(name))]
    return 2 * sum(word in begins for word in words) > len(words)


def _short_forms(caption: str, start: int, end: int) -> list[tuple[int, str]]:
    """Short forms, and where they are, given right behind or right before ``caption[start:end]`` that fit it."""
    found = []
    if behind := _BEHIND.match(caption, end):
        found.append((behind.start(1), behind.group(1)))
    begin = max(0, start - _REACH)
    before = _BEFORE.search(caption[begin:start])
    if before and _CLOSED.match(caption, end):
        found.append(
            (begin + before.start(1), before.group(1))
        )  # "AD, abdominal diameter" does not define the abdomen
    return [(at, short) for at, short in found if fits(short, caption[start:end])]


def fits(short: str, long: str) -> bool:
    """Whether a short form can abbreviate a long form; the long form has to be longer by half at least."""
    if len(long) < 1.5 * len(short) + 1 or sum(char.isupper() for char in short) < 2:
        return False
    short, long = short.lower(), long.lower()
    if long[0] != short[0]:
        return False
    rest = iter(long)
    return all(char in rest for char in short)
