"""Clinical shorthand: what reports abbreviate and figure captions use in other senses ("GB", "PE").

A line of ``shorthand.tsv`` is read in any text, or only in one that looks like a report; and, where it lists words that
it needs, only in a text with one of them. In any text are read those that ROCO's captions (n = 25,932) never use in
another sense ("PTX", "fx": not at all). A text looks like a report when it has a section's heading ("IMPRESSION:") or
two different cues: phrases of reports ("no acute", "again seen", "s/p") and shorthand that needs no other word.
Measured: .3 % of ROCO's captions have two phrases, 85 % of Indiana University's chest reports (n = 1,903).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kg_targets.concepts.stop_list import read_table
from kg_targets.concepts.text import Folded, fold_alias, surface

SHIPPED = Path(__file__).with_name("shorthand.tsv")
COLUMNS = ["short", "long", "texts", "needs", "source"]
_HEADING = re.compile(r"\b(?:findings|impression|indication|technique|comparison|exam|clinical history) ?:")
_CUE = re.compile(
    r"\b(?:unremarkable|within normal limits|no acute|no focal|(?:is|are) clear|grossly|interval|stable|impression"
    r"|again (?:seen|noted)|compar(?:ed (?:to|with)|ison)|(?:s p|r o|h o|w o|c w|hx|pt)|no evidence of"
    r"|there (?:is|are|has been)|noted|identified|heart size|silhouette|significant change|mediastinal contours) "
)
_CUES_NEEDED = 2


class Shorthand(NamedTuple):
    """One line of the table."""

    short: str
    """Folded."""
    exact: str
    """The wording with its case where it has capitals, else empty."""
    long: str
    """Folded; the alias of some concept."""
    anywhere: bool
    """Read it in any text, not in reports only."""
    needs: tuple[str, ...]
    """Folded words of which the text must have one; none where empty."""


def shorthand(row: list[str]) -> Shorthand:
    """Read one row of the table."""
    short, long, texts, needs, _ = row
    exact = "" if short.islower() else surface(short)
    words = tuple(fold_alias(word) for word in needs.split("|") if word)
    return Shorthand(fold_alias(short), exact, fold_alias(long), texts == "any", words)


def shorthand_lines() -> list[Shorthand]:
    """All lines of the shipped table."""
    return [shorthand(row) for row in read_table(SHIPPED, COLUMNS)]


def read_here(found: set[Shorthand], folded: Folded) -> set[Shorthand]:
    """Those lines, of the ones that a text has, which may be read in it: see the module's docstring."""
    report = _looks_like_report(folded, sum(not line.needs for line in found))
    return {
        line
        for line in found
        if (report or line.anywhere)
        and (not line.needs or any(f" {word} " in folded.search for word in line.needs))
    }


def _looks_like_report(folded: Folded, unambiguous: int) -> bool:
    """Tell a report from a caption, by the text and how many lines of shorthand that need no other word it has."""
    if _HEADING.search(folded.text):
        return True
    return unambiguous + len(set(_CUE.findall(folded.search))) >= _CUES_NEEDED
