"""Where one sentence of a caption ends and the next begins.

A full stop ends a sentence unless it belongs to a number ("3.5 cm"), a known abbreviation ("Fig. 1", "approx."), or a
single letter ("E. coli"; but "T2." does end one).
"""

from __future__ import annotations

import re

_STOP = re.compile(
    r"[!?]+(?=\s|$)"
    r"|\.+(?=[\s\"')\]\u2019\u201d]|$)"
    r"|(?<=[a-z)])\.(?=[A-Z][a-z])"  # "fracture.No effusion"
    r"|;|\n\s*\n"
)
_LAST_WORD = re.compile(r"([^\s(\[]*)$")
_ABBREVIATIONS = frozenset(
    [
        "fig",
        "figs",
        "approx",
        "ca",
        "cf",
        "vs",
        "e.g",
        "eg",
        "i.e",
        "ie",
        "etc",
        "dr",
        "mr",
        "mrs",
        "prof",
        "no",
        "nos",
        "nr",
        "resp",
        "incl",
        "ref",
        "refs",
        "st",
        "al",
        "max",
        "min",
        "vol",
        "pat",
        "pt",
        "yr",
        "yrs",
        "wk",
        "mo",
        "hr",
        "sec",
        "ant",
        "post",
        "lat",
        "med",
        "sup",
        "inf",
        "art",
        "dept",
    ]
)
_NEEDS_NUMBER = frozenset(
    ["no", "nos", "nr", "fig", "figs", "ref", "refs"]
)  # "No. 5" but "... there was no."
_MAY_END = frozenset(
    ["etc", "al", "yr", "yrs", "wk", "mo", "hr", "sec"]
)  # end a sentence before a capital letter


def boundaries(caption: str) -> list[int]:
    """Code-point offsets at which a sentence (or a part closed by a semicolon) ends, the caption's length last."""
    ends = [match.end() for match in _STOP.finditer(caption) if not _continues(caption, match)]
    if not ends or ends[-1] != len(caption):
        ends.append(len(caption))
    return ends


def _continues(caption: str, match: re.Match[str]) -> bool:
    """Whether a full stop stands inside a sentence."""
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
