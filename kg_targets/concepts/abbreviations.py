"""Abbreviations that a caption defines itself: "portal vein (PV)", "PV = portal vein", "PV (portal vein)".

In such a caption PV means the portal vein, whatever an ontology says of PV elsewhere. Whether the short form fits the
long one is decided as by Schwartz & Hearst (A Simple Algorithm for Identifying Abbreviation Definitions in Biomedical
Text, PSB 2003): its characters occur in the long form in order, the first of them at its beginning. A long form that is
no concept takes from its short form what it means elsewhere: "local anesthetic (LA)" is no left atrium.
"""

from __future__ import annotations

import re

from kg_targets.concepts.lexicon import Hit, Sense
from kg_targets.concepts.text import Folded, fold_alias, without_overlap

_UNKNOWN = Sense("", "", "", (0, 0), False, False)
_LONGEST = 3
_SIGNED = re.compile(r"[A-Z][a-z0-9]*[A-Z][A-Za-z0-9]*\s*[=:,(\u2013\-)\];]")  # what every definition has
_ACRONYM = re.compile(r"[A-Z]{2,3}")  # longer ones mean one thing
_SHORT = r"([A-Z][A-Za-z0-9]{1,7})"
_BEHIND = re.compile(rf"\s*[(\[]{_SHORT}[)\],;]")  # portal vein (PV)
_BEFORE = re.compile(rf"(?<![A-Za-z0-9]){_SHORT}\s*[=:,(\u2013-]\s*$")  # PV = portal vein
_STANDS_FOR = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2,3})\s*(?:[=:]|,(?=[^,]*(?:;|\.|$)))(?=\s*([^.,;:()=]+))")
_WORD = re.compile(r"(?<![A-Za-z0-9])[A-Z][A-Za-z0-9]{1,8}(?![A-Za-z0-9])")
_CLOSED = re.compile(r"\s*(?:$|[.,;:)\]\n])")
_REACH = 16  # code points in which a short form and its sign can stand before a long form
_OPEN = ("(", "[")
_BEGIN = ("=", ":", ",")
_CLOSE = (")", "]", ",", ";")
_CLAUSE = re.compile(r"[.;:()\[\]]")
_SIGNS = frozenset("=:,(\u2013-")


def with_definitions(caption: str, folded: Folded, hits: list[Hit]) -> list[Hit]:
    """The hits without overlap, with every occurrence of a defined abbreviation read as defined."""
    kept = without_overlap(hits)
    if not _SIGNED.search(caption):
        return kept
    defined: dict[str, Sense] = {}
    unknown: list[str] = []
    for start, end, sense in kept:  # "pulmonary artery", not the "pulmonary" in it
        if folded.origin is not None:
            start, end = folded.span(start, end)
        opens = caption[end : end + 2].lstrip()[:1] in _OPEN
        follows = caption[max(0, start - 2) : start].rstrip()[-1:] in _SIGNS
        if end - start > _LONGEST:
            if (opens or follows) and not sense.exact:
                for short in _short_forms(caption, start, end):
                    defined.setdefault(short, sense)
        elif sense.cui and (
            caption[start - 1 : start] in _OPEN or caption[end : end + 2].lstrip()[:1] in _BEGIN
        ):
            short = caption[start:end]
            if (long := _defined_as(short, caption)) and not _alike(long, sense.name):
                unknown.append(short)
    for short in unknown:
        defined.setdefault(short, _UNKNOWN)
    if not defined:
        return kept
    spans = {
        folded.locate(match.start(), match.start() + len(short)): defined[short]
        for match in _WORD.finditer(caption)
        for short in {match.group(), match.group().removesuffix("s")} & defined.keys()
    }
    others = [hit for hit in hits if (hit.start, hit.end) not in spans]
    return without_overlap(others + [Hit(start, end, sense) for (start, end), sense in spans.items()])


def _defined_as(short: str, caption: str) -> str:
    """The long form of several words that a caption gives for a short form, somewhere; empty if there is none."""
    if not _ACRONYM.fullmatch(short):
        return ""
    for sign in _OPEN:
        head, found, rest = caption.partition(sign + short)
        if found and rest[:1] in _CLOSE:
            words = _CLAUSE.split(head)[-1].split()
            return _long_form(short, words[-min(len(short) + 5, 2 * len(short)) :])
    if before := next((match for match in _STANDS_FOR.finditer(caption) if match.group(1) == short), None):
        words = before.group(2).split()
        if "".join(word[0] for word in words).lower() == short.lower():
            return " ".join(words)
    return ""


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


def _short_forms(caption: str, start: int, end: int) -> list[str]:
    """Short forms given right behind or right before ``caption[start:end]`` that fit it."""
    found = []
    if behind := _BEHIND.match(caption, end):
        found.append(behind.group(1))
    before = _BEFORE.search(caption[max(0, start - _REACH) : start])
    if before and _CLOSED.match(caption, end):
        found.append(before.group(1))  # but "AD, abdominal diameter" does not define the abdomen
    return [short for short in found if fits(short, caption[start:end])]


def fits(short: str, long: str) -> bool:
    """Whether a short form can abbreviate a long form; the long form has to be longer by half at least."""
    if len(long) < 1.5 * len(short) + 1 or sum(char.isupper() for char in short) < 2:
        return False
    short, long = short.lower(), long.lower()
    if long[0] != short[0]:
        return False
    rest = iter(long)
    return all(char in rest for char in short)
