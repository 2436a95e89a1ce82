"""Abbreviations that a caption defines itself: "portal vein (PV)", "PV = portal vein", "PV (portal vein)".

In such a caption PV means the portal vein, whatever an ontology says of PV elsewhere. The long form must be a concept
already found; whether the short form fits it is decided as by Schwartz & Hearst (A Simple Algorithm for Identifying
Abbreviation Definitions in Biomedical Text, PSB 2003): its characters occur in the long form in order, the first of
them at its beginning.
"""

from __future__ import annotations

import re

from kg_targets.concepts.folding import Folded
from kg_targets.concepts.lexicon import Hit, Sense
from kg_targets.concepts.spans import without_overlap

_SHORT = r"([A-Z][A-Za-z0-9]{1,7})"
_BEHIND = re.compile(rf"\s*[(\[]{_SHORT}[)\],;]")  # portal vein (PV)
_BEFORE = re.compile(rf"(?<![A-Za-z0-9]){_SHORT}\s*[=:,(\u2013-]\s*$")  # PV = portal vein
_CLOSED = re.compile(r"\s*(?:$|[.,;:)\]\n])")
_REACH = 16  # code points in which a short form and its sign can stand before a long form
_SIGNS = re.compile(r"[(\[=:,\u2013-]\s?[A-Z][A-Za-z0-9]|[A-Z]\s?[=:,(\u2013-]")


def with_definitions(caption: str, folded: Folded, hits: list[Hit]) -> list[Hit]:
    """The hits, with every occurrence of a defined abbreviation read as defined."""
    if not _SIGNS.search(caption):
        return hits
    defined: dict[str, Sense] = {}
    for hit in without_overlap(hits):  # "pulmonary artery", not the "pulmonary" in it
        if hit.end - hit.start > 3 and not hit.sense.exact:
            for short in _short_forms(caption, *folded.span(hit.start, hit.end)):
                defined.setdefault(short, hit.sense)
    if not defined:
        return hits
    spans = {
        folded.locate(match.start(1), match.end(1)): sense
        for short, sense in defined.items()
        for match in re.finditer(rf"(?<![A-Za-z0-9])({short})s?(?![A-Za-z0-9])", caption)
    }
    kept = [hit for hit in hits if (hit.start, hit.end) not in spans]
    return kept + [Hit(start, end, sense) for (start, end), sense in spans.items()]


def _short_forms(caption: str, start: int, end: int) -> list[str]:
    """Short forms given right behind or right before ``caption[start:end]`` that fit it."""
    found = []
    if behind := _BEHIND.match(caption, end):
        found.append(behind.group(1))
    before = _BEFORE.search(caption[max(0, start - _REACH) : start])
    if before and _CLOSED.match(caption, end):  # "AD, abdominal diameter" does not define the abdomen
        found.append(before.group(1))
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
